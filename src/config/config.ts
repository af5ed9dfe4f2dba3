import type { z } from 'zod';
import { TailraceError } from '../base/errors.ts';
import { redactor } from '../base/secret.ts';
import { parseFile, type ConfigFile, type ParsedFile } from './config-file.ts';
import { addEnvironment, addFlags, fileLayer, get, type Environment, type Layers } from './layers.ts';
import { nearest } from './nearest.ts';
import { configSchema, type Config } from './schema.ts';
import { expectedOf, nodeAt, schemaRoot, settingsOf, type SettingNode } from './settings.ts';

/** Where a configuration comes from. What stands later wins. */
export interface ConfigSources {
  readonly file?: ConfigFile;
  /** Variables that begin with `TAILRACE_`, and those that the file refers to. */
  readonly env?: Environment;
  /** Texts by the setting's name, as in `log.createTopics`. */
  readonly flags?: Readonly<Record<string, string | undefined>>;
}

/**
 * Puts the sources together, checks them and fills in defaults.
 *
 * @throws TailraceError `INVALID_CONFIG`: something is unknown, missing or wrong. The message names each such thing, where
 * it stands, what was found and what was expected, and shows no secret.
 */
export function loadConfig({ file, env = {}, flags = {} }: ConfigSources): Config {
  const root = schemaRoot();
  const settings = settingsOf(root);
  const parsed = file === undefined ? undefined : parseFile(file);
  const layers = fileLayer(parsed, env);
  addEnvironment(layers, settings, env);
  addFlags(layers, settings, flags);
  const result = configSchema.safeParse(layers.tree);
  const issues = result.success ? [] : result.error.issues;
  const context = { root, layers, parsed };
  const problems = [...layers.problems, ...issues.flatMap((issue) => sentencesOf(issue, context)), ...lacks(layers)];
  if (result.success && problems.length === 0) return result.data;
  throw new TailraceError('INVALID_CONFIG', redactor([])([...new Set(problems)].join(' ')), {
    details: { problems: problems.length },
  });
}

interface Context {
  readonly root: SettingNode;
  readonly layers: Layers;
  readonly parsed: ParsedFile | undefined;
}

function lacks({ tree }: Layers): string[] {
  const pipelines = get(tree, ['pipelines']);
  const isEmpty =
    pipelines === undefined || (typeof pipelines === 'object' && Object.keys(pipelines ?? {}).length === 0);
  return isEmpty ? ['No pipeline is configured. Name one under pipelines: with its databaseUrl.'] : [];
}

function sentencesOf(issue: z.core.$ZodIssue, context: Context): string[] {
  const { root, layers } = context;
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => unknownKey(key, issue.path, context));
  }
  const path = issue.path.map(String);
  if (path.length === 1 && path[0] === 'pipelines' && get(layers.tree, path) === undefined) return []; // see lacks
  const name = path.join('.');
  if (issue.code === 'invalid_key') {
    const expected = expectedOf(nodeAt(root, path.slice(0, -1))?.propertyNames ?? {});
    return [`${whereOf(path, context)}: ${name} has a name that cannot be used; expected ${expected}.`];
  }
  const node = nodeAt(root, path) ?? {};
  const value = get(layers.tree, path);
  if (value === undefined) return [`${whereOf(path, context)}: ${name} is missing; expected ${expectedOf(node)}.`];
  return [`${subjectOf(path, context)} is ${shownValue(value, path, node, layers)}; expected ${expectedOf(node)}.`];
}

/** As in `relay.yaml:7: pipelines.shop.leaseMs`, or `--lease-ms`. */
function subjectOf(path: readonly string[], context: Context): string {
  const where = whereOf(path, context);
  return /^(--|\$)/.test(where) ? where : `${where}: ${path.join('.')}`;
}

function whereOf(path: readonly string[], { layers, parsed }: Context): string {
  return layers.given.get(path.join('.'))?.where ?? parsed?.lineOf(path) ?? 'the configuration';
}

function shownValue(value: unknown, path: readonly string[], node: SettingNode, { given }: Layers): string {
  if (node.secret === true) return typeof value === 'string' ? 'a text that does not fit' : kindOf(value);
  if (typeof value === 'object') return kindOf(value);
  const text = given.get(path.join('.'))?.shown ?? JSON.stringify(value);
  return text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}…` : text;
}

const LONGEST_SHOWN = 60;

function kindOf(value: unknown): string {
  if (value === null) return 'empty';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'a group of settings' : `a ${typeof value}`;
}

function unknownKey(key: string, path: readonly PropertyKey[], { root, parsed }: Context): string {
  const known = Object.keys(nodeAt(root, path)?.properties ?? {});
  const near = nearest(key, known);
  const where = parsed?.lineOf([...path, key]) ?? 'the configuration';
  const name = [...path, key].map(String).join('.');
  return `${where}: ${name} is not known. Did you mean ${near?.word ?? 'nothing'}? Known here: ${known.join(', ')}.`;
}
