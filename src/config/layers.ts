import type { ParsedFile } from './config-file.ts';
import { MISTAKE_DISTANCE, nearest } from './nearest.ts';
import { ANY_PIPELINE, envSuffixOf, flagOf, isOfPipeline, ONLY_PIPELINE, settingId, type Setting } from './settings.ts';

/** A value, and how to speak of it: where it was given, and the text as it was written there. */
interface Given {
  readonly where: string;
  readonly shown: string;
}

/** Values as they were given, before they are checked. */
export interface Layers {
  readonly tree: Tree;
  /** By the path, joined by dots. What is not here stands in the file. */
  readonly given: Map<string, Given>;
  readonly problems: string[];
  /** What is wrong with values of the file that refer to variables which are not set: by the path, joined by dots. */
  readonly unresolved: Map<string, string>;
}

export type Tree = Record<string, unknown>;
export type Environment = Readonly<Record<string, string | undefined>>;

const PREFIX = 'TAILRACE_';
const PIPELINES_PREFIX = `${PREFIX}PIPELINES_`;

/** Replaces `${NAME}` in all texts of a file by the environment's values; `$${` stands for `${`. */
export function fileLayer(file: ParsedFile | undefined, env: Environment): Layers {
  const layers: Layers = { tree: {}, given: new Map(), problems: [], unresolved: new Map() };
  if (file === undefined || file.value === null) return layers;
  const value = resolved(file.value, [], { file, env, layers });
  if (isTree(value)) return { ...layers, tree: value };
  layers.problems.push(`${file.lineOf([])}: expected settings, such as pipelines: and http:.`);
  return layers;
}

interface Resolving {
  readonly file: ParsedFile;
  readonly env: Environment;
  readonly layers: Layers;
}

function resolved(value: unknown, path: readonly string[], context: Resolving): unknown {
  if (typeof value === 'string') return resolvedText(value, path, context);
  if (Array.isArray(value)) return value.map((item, n) => resolved(item, [...path, String(n)], context));
  if (!isTree(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item, [...path, key], context)]));
}

function resolvedText(text: string, path: readonly string[], { file, env, layers }: Resolving): string {
  const where = file.lineOf(path);
  layers.given.set(path.join('.'), { where, shown: JSON.stringify(text) });
  return text.replace(/\$(\$\{)|\$\{([^}]*)\}/g, (_whole, escaped: string | undefined, name = '') => {
    if (escaped !== undefined) return escaped;
    const value = env[String(name)];
    if (value !== undefined && value !== '') return value;
    const setting = path.join('.');
    layers.unresolved.set(setting, `${where}: ${setting} refers to the variable ${String(name)}, which is not set.`);
    return '';
  });
}

/**
 * Puts the environment's values over the file's. `TAILRACE_PIPELINES_SHOP_LEASE_MS` is for one pipeline;
 * `TAILRACE_LEASE_MS` for every pipeline that does not say otherwise, and for the only one where none is named.
 */
export function addEnvironment(layers: Layers, settings: readonly Setting[], env: Environment): void {
  const names = Object.keys(env).filter((name) => name.startsWith(PREFIX) && env[name] !== '');
  const used = new Set<string>();
  const give = (setting: Setting, path: readonly string[], name: string): void => {
    used.add(name);
    set(layers, path, fromText(env[name] ?? '', setting), { where: `$${name}`, shown: JSON.stringify(env[name]) });
  };
  for (const setting of settings.filter((one) => !isOfPipeline(one))) {
    const name = PREFIX + envSuffixOf(setting);
    if (names.includes(name)) give(setting, setting.path, name);
  }
  for (const name of names.filter((one) => one.startsWith(PIPELINES_PREFIX))) {
    const found = pipelineSetting(name, settings);
    if (found !== undefined) give(found.setting, pathIn(found.pipeline, found.setting), name);
  }
  addForAll(layers, settings, names, give);
  layers.problems.push(...mistakes(names, used, settings));
}

function addForAll(
  layers: Layers,
  settings: readonly Setting[],
  names: readonly string[],
  give: (setting: Setting, path: readonly string[], name: string) => void,
): void {
  const pipelines = pipelineNames(layers);
  for (const setting of settings.filter(isOfPipeline)) {
    const name = PREFIX + envSuffixOf(setting);
    if (!names.includes(name)) continue;
    for (const pipeline of pipelines.length === 0 ? [ONLY_PIPELINE] : pipelines) {
      const path = pathIn(pipeline, setting);
      if (get(layers.tree, path) === undefined) give(setting, path, name);
    }
  }
}

/** The names of the pipelines that are spoken of so far. */
export function pipelineNames({ tree }: Layers): string[] {
  const pipelines = get(tree, ['pipelines']);
  return isTree(pipelines) ? Object.keys(pipelines) : [];
}

function pipelineSetting(name: string, settings: readonly Setting[]) {
  const rest = name.slice(PIPELINES_PREFIX.length);
  const fitting = settings
    .filter((setting) => isOfPipeline(setting) && rest.endsWith(`_${envSuffixOf(setting)}`))
    .sort((a, b) => envSuffixOf(b).length - envSuffixOf(a).length);
  const setting = fitting[0];
  if (setting === undefined) return undefined;
  const pipeline = rest.slice(0, -envSuffixOf(setting).length - 1);
  return { setting, pipeline: pipeline.toLowerCase().replaceAll('_', '-') };
}

function mistakes(names: readonly string[], used: ReadonlySet<string>, settings: readonly Setting[]): string[] {
  const known = settings.map((setting) => PREFIX + envSuffixOf(setting));
  return names
    .filter((name) => !used.has(name) && !known.includes(name))
    .flatMap((name) => {
      if (name.startsWith(PIPELINES_PREFIX)) {
        const near = nearestOfPipeline(name, settings);
        if (near !== undefined) return [`$${name} is not known. Did you mean $${near}?`];
        const ends = settings.filter(isOfPipeline).map(envSuffixOf).join(', ');
        return [`$${name} is not known. Expected ${PIPELINES_PREFIX}, the pipeline's name, and one of ${ends}.`];
      }
      const near = nearest(name, known); // what is further from all of them belongs to somebody else
      return near === undefined || near.distance > MISTAKE_DISTANCE
        ? []
        : [`$${name} is not known. Did you mean $${near.word}?`];
    });
}

/** The variable that was meant by one that ends almost as a setting does; its pipeline's name may be of several words. */
function nearestOfPipeline(name: string, settings: readonly Setting[]): string | undefined {
  const ends = settings.filter(isOfPipeline).map(envSuffixOf);
  const words = name.slice(PIPELINES_PREFIX.length).split('_');
  const meant = words.slice(1).flatMap((_word, n) => {
    const near = nearest(words.slice(n + 1).join('_'), ends);
    const pipeline = words.slice(0, n + 1).join('_');
    return near === undefined ? [] : [{ name: `${PIPELINES_PREFIX}${pipeline}_${near.word}`, distance: near.distance }];
  });
  const [best] = meant.sort((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= MISTAKE_DISTANCE ? best.name : undefined;
}

/**
 * Puts the command line's values over all others. `flags` are named as {@link settingId} does; those of a pipeline are for
 * `chosen`, or for the only one there is.
 */
export function addFlags(
  layers: Layers,
  settings: readonly Setting[],
  flags: Readonly<Record<string, string | undefined>>,
  chosen?: string,
): void {
  const names = pipelineNames(layers);
  const pipeline = chosen ?? (names.length > 1 ? undefined : (names[0] ?? ONLY_PIPELINE));
  for (const setting of settings) {
    const text = flags[settingId(setting)];
    if (text === undefined) continue;
    const where = flagOf(setting) ?? settingId(setting);
    if (isOfPipeline(setting) && pipeline === undefined) {
      layers.problems.push(
        `${where} is for a single pipeline, and the config names ${names.join(', ')}. Set ${settingId(setting)} there.`,
      );
    } else {
      const path = pathIn(pipeline ?? ONLY_PIPELINE, setting);
      set(layers, path, fromText(text, setting), { where, shown: JSON.stringify(text) });
    }
  }
}

function pathIn(pipeline: string, { path }: Setting): string[] {
  return path.map((key) => (key === ANY_PIPELINE ? pipeline : key));
}

/** Text as the type that the setting has; unchanged if it is none, so that the schema refuses it. */
function fromText(text: string, { node }: Setting): unknown {
  switch (node.type) {
    case 'integer':
      return /^-?\d{1,15}$/.test(text) ? Number(text) : text;
    case 'boolean':
      return text === 'true' ? true : text === 'false' ? false : text;
    case 'array':
      return text.split(',').map((item) => item.trim());
    default:
      return text;
  }
}

function set({ tree, given }: Layers, path: readonly string[], value: unknown, source: Given): void {
  let node = tree;
  for (const key of path.slice(0, -1)) {
    const child = Object.hasOwn(node, key) ? node[key] : undefined;
    const next = isTree(child) ? child : {};
    node[key] = next;
    node = next;
  }
  node[path.at(-1) ?? ''] = value;
  given.set(path.join('.'), source);
}

/** The value at a path; `undefined` if there is none. */
export function get(tree: unknown, path: readonly PropertyKey[]): unknown {
  let value: unknown = tree;
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
