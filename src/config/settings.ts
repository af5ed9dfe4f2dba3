import { z } from 'zod';
import { configSchema } from './schema.ts';

/** Stands in a path for the name of a pipeline. */
export const ANY_PIPELINE = '*';
/** The name of the pipeline that the command line and the environment describe without a file. */
export const ONLY_PIPELINE = 'default';

/** What the schema says of one value, in the words of JSON Schema. */
export interface SettingNode {
  readonly type?: 'object' | 'array' | 'string' | 'integer' | 'boolean';
  readonly properties?: Readonly<Record<string, SettingNode>>;
  readonly additionalProperties?: SettingNode | false;
  readonly propertyNames?: SettingNode;
  readonly required?: readonly string[];
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default?: unknown;
  readonly description?: string;
  readonly expected?: string;
  readonly secret?: boolean;
  readonly otherwise?: string;
}

/** A setting that has a value of its own. */
export interface Setting {
  /** From the root, with {@link ANY_PIPELINE} for the name of a pipeline. */
  readonly path: readonly string[];
  readonly node: SettingNode;
  readonly isRequired: boolean;
}

/** The schema as data. */
export function schemaRoot(): SettingNode {
  return z.toJSONSchema(configSchema, { io: 'input' }) as SettingNode;
}

/** Every setting, in the order of the schema. */
export function settingsOf(node: SettingNode, path: readonly string[] = [], isRequired = false): Setting[] {
  if (node.type !== 'object') return [{ path, node, isRequired }];
  const own = Object.entries(node.properties ?? {}).flatMap(([key, child]) =>
    settingsOf(child, [...path, key], node.required?.includes(key) ?? false),
  );
  const { additionalProperties } = node;
  if (additionalProperties === undefined || additionalProperties === false) return own;
  return [...own, ...settingsOf(additionalProperties, [...path, ANY_PIPELINE])];
}

/** What the schema says of the value at a path; `undefined` if it knows none there. */
export function nodeAt(root: SettingNode, path: readonly PropertyKey[]): SettingNode | undefined {
  let node: SettingNode | undefined = root;
  for (const key of path) node = node === undefined ? undefined : childOf(node, key);
  return node;
}

function childOf({ properties, additionalProperties }: SettingNode, key: PropertyKey): SettingNode | undefined {
  const known = properties !== undefined && typeof key === 'string' && Object.hasOwn(properties, key);
  if (known) return properties[key];
  return additionalProperties === false ? undefined : additionalProperties;
}

/** The path without `pipelines` and the pipeline's name: how flags and the environment call a setting. */
function shortPath(path: readonly string[]): readonly string[] {
  return path[1] === ANY_PIPELINE ? path.slice(2) : path;
}

/** As in `log.createTopics`: names a setting among the flags. */
export function settingId({ path }: Setting): string {
  return shortPath(path).join('.');
}

/** As in `--log-create-topics`; none for a secret other than the database's URL, since others see a command line. */
export function flagOf(setting: Setting): string | undefined {
  const id = settingId(setting);
  if (setting.node.secret === true && id !== 'databaseUrl') return undefined;
  return `--${words(shortPath(setting.path)).join('-')}`;
}

/** As in `LOG_CREATE_TOPICS`: the end of the name in the environment. */
export function envSuffixOf({ path }: Setting): string {
  return words(shortPath(path)).join('_').toUpperCase();
}

function words(path: readonly string[]): string[] {
  return path.flatMap((key) => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`).split('-'));
}

/** Whether each pipeline has one of its own. */
export function isOfPipeline({ path }: Setting): boolean {
  return path[1] === ANY_PIPELINE;
}

/** What a value must be, as words that follow "expected". */
export function expectedOf(node: SettingNode): string {
  if (node.expected !== undefined) return node.expected;
  if (node.enum !== undefined) return node.enum.join(' or ');
  switch (node.type) {
    case 'integer':
      return `a whole number from ${node.minimum ?? 0} to ${node.maximum ?? 0}`;
    case 'boolean':
      return 'true or false';
    case 'array':
      return 'a list of texts';
    case 'object':
      return `a group of settings${node.properties === undefined ? '' : `: ${Object.keys(node.properties).join(', ')}`}`;
    default:
      return 'a text';
  }
}
