import type { z } from 'zod';
import { TailraceError } from '../base/errors.ts';
import { redactor } from '../base/secret.ts';
import { parseFile, type ConfigFile, type ParsedFile } from './config-file.ts';
import { addEnvironment, addFlags, fileLayer, get, pipelineNames, type Environment, type Layers } from './layers.ts';
import { MISTAKE_DISTANCE, nearest } from './nearest.ts';
import { configSchema, pipelineSchema, type Config, type PipelineConfig } from './schema.ts';
import { expectedOf, nodeAt, ONLY_PIPELINE, schemaRoot, settingsOf, type SettingNode } from './settings.ts';

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
export function loadConfig(sources: ConfigSources): Config {
  const context = contextOf(sources);
  const { layers, root } = context;
  addFlags(layers, settingsOf(root), sources.flags ?? {});
  const result = configSchema.safeParse(layers.tree);
  const issues = result.success ? [] : result.error.issues;
  const problems = [...layers.unresolved.values(), ...layers.problems, ...sentences(issues, context), ...lacks(layers)];
  if (result.success && problems.length === 0) return result.data;
  throw invalid(problems);
}

/** Where the settings of one pipeline come from, and which it is. */
export interface PipelineSources extends ConfigSources {
  /** Its name; may be left out where there is but one. */
  readonly pipeline?: string;
  /** Whether a pipeline without a database will do. @defaultValue false */
  readonly isDatabaseOptional?: boolean;
}

/** The settings of a pipeline, perhaps without a database. */
export type ChosenPipeline = Omit<PipelineConfig, 'databaseUrl'> & {
  readonly databaseUrl?: PipelineConfig['databaseUrl'] | undefined;
};

/**
 * The settings of one pipeline, from the same sources and with the same checks as {@link loadConfig}; but variables that the
 * file refers to elsewhere need not be set, so that whoever works on one pipeline needs no secrets of another.
 *
 * @throws TailraceError `INVALID_CONFIG`: as there; or there are several pipelines and none is named, or none of that name.
 */
export function loadPipeline({ pipeline, isDatabaseOptional = false, ...sources }: PipelineSources): ChosenPipeline {
  const context = contextOf(sources);
  const { layers, root } = context;
  const name = chosenName(pipelineNames(layers), pipeline);
  addFlags(layers, settingsOf(root), sources.flags ?? {}, name);
  if (isDatabaseOptional && pipelineNames(layers).length === 0) layers.tree['pipelines'] = { [name]: {} };
  const place = `pipelines.${name}`;
  const isElsewhere = (path: string): boolean => layers.unresolved.has(path) && !path.startsWith(`${place}.`);
  const isLeftOut = (path: string): boolean =>
    isDatabaseOptional && path === `${place}.databaseUrl` && get(layers.tree, path.split('.')) === undefined;
  const result = configSchema.safeParse(layers.tree);
  const issues = (result.success ? [] : result.error.issues).filter(({ path }) => {
    const joined = path.map(String).join('.');
    return !isElsewhere(joined) && !isLeftOut(joined);
  });
  const problems = [
    ...[...layers.unresolved].flatMap(([path, problem]) => (isElsewhere(path) ? [] : [problem])),
    ...layers.problems,
    ...sentences(issues, context),
    ...lacks(layers),
  ];
  if (problems.length > 0) throw invalid(problems);
  return pipelineSchema.partial({ databaseUrl: true }).parse(get(layers.tree, ['pipelines', name]));
}

function chosenName(names: readonly string[], wanted: string | undefined): string {
  if (wanted === undefined && names.length <= 1) return names[0] ?? ONLY_PIPELINE;
  const list = names.join(', ');
  if (wanted === undefined) throw invalid([`The config has several pipelines: ${list}. Say which: --pipeline <name>.`]);
  if (names.includes(wanted)) return wanted;
  const found = names.length === 0 ? 'No pipeline is configured' : `The configured ones are: ${list}`;
  throw invalid([
    `There is no pipeline ${JSON.stringify(wanted)}. ${found}. Pipelines are named in the file of --config or $TAILRACE_CONFIG.`,
  ]);
}

function contextOf({ file, env = {} }: ConfigSources): Context {
  const root = schemaRoot();
  const parsed = file === undefined ? undefined : parseFile(file);
  const layers = fileLayer(parsed, env);
  addEnvironment(layers, settingsOf(root), env);
  return { root, layers, parsed };
}

function invalid(problems: readonly string[]): TailraceError {
  const different = [...new Set(problems)];
  return new TailraceError('INVALID_CONFIG', redactor([])(different.join(' ')), {
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

/** One mistake, one sentence: nothing more is said of a value that another sentence explains. */
function sentences(issues: readonly z.core.$ZodIssue[], context: Context): string[] {
  const explained = new Set([...context.layers.unresolved.keys(), ...misspelt(issues, context)]);
  return issues
    .filter(({ path }) => !explained.has(path.map(String).join('.')))
    .flatMap((issue) => sentencesOf(issue, context));
}

/** The settings that are missing because their names were misspelt. */
function misspelt(issues: readonly z.core.$ZodIssue[], { root, layers }: Context): string[] {
  return issues.flatMap((issue) => {
    if (issue.code !== 'unrecognized_keys') return [];
    const known = Object.keys(nodeAt(root, issue.path)?.properties ?? {});
    return issue.keys.flatMap((key) => {
      const near = nearest(key, known);
      if (near === undefined || near.distance > MISTAKE_DISTANCE) return [];
      const path = [...issue.path.map(String), near.word];
      return get(layers.tree, path) === undefined ? [path.join('.')] : [];
    });
  });
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
