import { type Command, Option } from 'commander';
import { readConfigFile } from '../config/config-file.ts';
import { type ChosenPipeline, loadPipeline } from '../config/config.ts';
import { checkedUrl, databaseUrl, databaseUrlOption, isDatabaseNamed } from './database-url.ts';
import type { Terminal } from './terminal.ts';

/**
 * What every command has that asks the database something. `databaseUrl` and `schema` are those of the option, of the
 * environment or of the config, in this order: see {@link fillFromConfig}.
 */
export interface DatabaseOptions {
  readonly databaseUrl?: string;
  readonly schema: string;
  readonly json?: true;
}

/** Adds the options of {@link DatabaseOptions}. */
export function withDatabaseOptions(command: Command): Command {
  return withPipelineOptions(command).option('--json', 'print one JSON document');
}

/** Adds the options of {@link DatabaseOptions} but `--json`. */
export function withPipelineOptions(
  command: Command,
  schemaHelp: string = 'the schema that tailrace migrate filled',
): Command {
  return command
    .addOption(configOption())
    .option('--pipeline <name>', 'which pipeline of the config (default: the only one)')
    .addOption(databaseUrlOption())
    .option('--schema <name>', `${schemaHelp} (default: tailrace)`);
}

/** The option `--config`. */
export function configOption(): Option {
  return new Option(
    '--config <file>',
    'settings in YAML or JSON: see docs/configuration.md (default: $TAILRACE_CONFIG)',
  );
}

/** The config file that the option or the environment names; `undefined` if none is. */
export function configPath(option: unknown, { env }: Pick<Terminal, 'env'>): string | undefined {
  const path = typeof option === 'string' ? option : env['TAILRACE_CONFIG'];
  return path === '' ? undefined : path;
}

/** The settings that options of commands stand for, by the options' names. */
const SETTINGS = {
  databaseUrl: 'databaseUrl',
  schema: 'schema',
  slot: 'slot',
  partitions: 'log.partitions',
} as const;

/**
 * Gives a command that works on one pipeline the settings of that pipeline, as the values of its options: from the option
 * itself, or else from the environment, the config file, or the default. Leaves other commands alone.
 *
 * @throws TailraceError `INVALID_CONFIG`. CommandFailure the URL of the database cannot be used.
 */
export function fillFromConfig(command: Command, terminal: Terminal): void {
  if (!hasOption(command, 'pipeline')) return;
  const given: Readonly<Record<string, unknown>> = command.opts();
  const { databaseUrl: url, ...pipeline } = chosenPipeline(given, terminal);
  const values: Readonly<Record<keyof typeof SETTINGS, unknown>> = {
    databaseUrl: url?.reveal(),
    schema: pipeline.schema,
    slot: pipeline.slot,
    partitions: pipeline.log.partitions,
  };
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && hasOption(command, name)) command.setOptionValueWithSource(name, value, 'config');
  }
}

function hasOption(command: Command, name: string): boolean {
  return command.options.some((option) => option.attributeName() === name);
}

function chosenPipeline(given: Readonly<Record<string, unknown>>, terminal: Terminal): ChosenPipeline {
  const { env } = terminal;
  const flags = flagsOf(given);
  const name = given['pipeline'];
  const pipeline = typeof name === 'string' ? { pipeline: name } : {};
  const path = configPath(given['config'], terminal);
  if (path === undefined) {
    const isNamed = isDatabaseNamed(flags['databaseUrl'], terminal);
    const url = isNamed ? { databaseUrl: databaseUrl(flags['databaseUrl'], terminal) } : {};
    return loadPipeline({ ...pipeline, env, flags: { ...flags, ...url }, isDatabaseOptional: !isNamed });
  }
  const chosen = loadPipeline({ ...pipeline, env, flags, file: readConfigFile(path) });
  if (chosen.databaseUrl !== undefined) checkedUrl(chosen.databaseUrl.reveal(), `databaseUrl in ${path}`);
  return chosen;
}

function flagsOf(given: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(SETTINGS).flatMap(([name, setting]) => {
      const value = given[name];
      return typeof value === 'string' || typeof value === 'number' ? [[setting, `${value}`]] : [];
    }),
  );
}
