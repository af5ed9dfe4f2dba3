import type { Command } from 'commander';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { Redaction } from '../base/secret.ts';
import { pause } from '../base/signal.ts';
import { readConfigFile } from '../config/config-file.ts';
import { loadConfig } from '../config/config.ts';
import { secretsOf, type Config } from '../config/schema.ts';
import { Daemon, type PipelineOutcome } from '../daemon/daemon.ts';
import type { RelayMode } from '../daemon/index.ts';
import { serviceManager } from '../daemon/service-manager.ts';
import { configOption, configPath } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { failureOf, problemOf } from './explain-error.ts';
import { CommandFailure, EXIT_FAILED, type Problem } from './failure.ts';
import { exampleHelp } from './help.ts';
import { jsonLogger, textLogger } from './loggers.ts';
import { addRelaySwitchCommand } from './relay-switch-command.ts';
import { addSettingOptions, givenSettings, type GivenOptions } from './setting-options.ts';
import { stopSignals } from './stop-signals.ts';
import type { Terminal } from './terminal.ts';
import { keepYoungGenerationSmall } from './young-generation.ts';

/** Adds `tailrace relay`. */
export function addRelayCommand(program: Command, terminal: Terminal): void {
  const command = program
    .command('relay')
    .summary('move committed messages from the outbox into their topics')
    .description(
      'Moves committed messages from the outbox into their topics until it is told to stop. Start it twice and one stands by. SIGTERM or Ctrl-C ends it in good order; a second one, at once. With --config it runs several pipelines, and reads the file again on SIGHUP.',
    )
    .addOption(configOption())
    .enablePositionalOptions(); // what stands behind `switch` is for it
  addSettingOptions(command)
    .option('--json', 'log as lines of JSON; at the end print what was done as one JSON document')
    .addHelpText(
      'after',
      exampleHelp(
        'tailrace relay --database-url postgresql://relay@localhost:5432/shop',
        'DATABASE_URL=postgresql://relay@localhost:5432/shop tailrace relay --mode polling --json',
        'tailrace relay --config relay.yaml',
      ),
    )
    .action((options: GivenOptions) => new RelayRun(options, terminal).run());
  addRelaySwitchCommand(command.helpCommand(false), terminal);
}

/** One run of the command, from its options to its exit code. */
class RelayRun {
  readonly #terminal: Terminal;
  readonly #options: GivenOptions;
  readonly #configPath: string | undefined;
  readonly #isJson: boolean;
  readonly #redaction = new Redaction();
  /** The modes that each pipeline has read in, in order. */
  readonly #modes = new Map<string, RelayMode[]>();

  constructor(options: GivenOptions, terminal: Terminal) {
    this.#options = options;
    this.#terminal = terminal;
    this.#configPath = configPath(options['config'], terminal);
    this.#isJson = options['json'] === true;
  }

  async run(): Promise<void> {
    try {
      await this.#run();
    } catch (error) {
      const { message, exitCode, code } = failureOf(error);
      throw new CommandFailure(this.#redaction.redact(message), exitCode, code);
    }
  }

  async #run(): Promise<void> {
    keepYoungGenerationSmall();
    const config = this.#load();
    const state = { config };
    const logger = this.#loggerOf(config, () => state.config.log.level);
    const daemon = new Daemon({
      config,
      logger,
      redact: (text) => this.#redaction.redact(text),
      onStatusChange: (name, { state: relayState, source }) => {
        logger.info({ pipeline: name, state: relayState, ...source }, 'status');
        this.#noteMode(name, source?.mode);
      },
    });
    const late = await this.#untilStopped(daemon, logger, state);
    this.#report(daemon.outcomes(), late);
  }

  /** Reads the configuration, and remembers what in it must never be shown. */
  #load(): Config {
    const { env } = this.#terminal;
    const flags = givenSettings(this.#options);
    const path = this.#configPath;
    const config =
      path === undefined
        ? loadConfig({ env, flags: { ...flags, databaseUrl: databaseUrl(flags['databaseUrl'], this.#terminal) } })
        : loadConfig({ file: readConfigFile(path), env, flags });
    this.#redaction.add([...secretsOf(config), ...(env['PGPASSWORD'] === undefined ? [] : [env['PGPASSWORD']])]);
    return config;
  }

  #loggerOf(config: Config, level: () => Config['log']['level']): Logger {
    const write = (text: string): void => this.#terminal.err(this.#redaction.redact(text));
    const isJson = this.#isJson || config.log.format === 'json';
    return isJson ? jsonLogger(write, level) : textLogger(write, this.#terminal, level);
  }

  #noteMode(name: string, mode: RelayMode | undefined): void {
    const modes = this.#modes.get(name) ?? [];
    if (mode !== undefined && modes.at(-1) !== mode) this.#modes.set(name, [...modes, mode]);
  }

  /** Resolves with a message if not everything stopped in time. */
  async #untilStopped(daemon: Daemon, logger: Logger, state: { config: Config }): Promise<string | undefined> {
    const manager = serviceManager(this.#terminal.env, logger);
    const stopOn = this.#configPath === undefined ? undefined : (['SIGINT', 'SIGTERM'] as const);
    using stop = stopSignals((signal) => {
      manager.stopping();
      logger.info({ signal }, 'stopping; a second signal ends the process at once');
    }, stopOn);
    using _reload = this.#reloadOnHangup(daemon, logger, state);
    try {
      await daemon.start();
      manager.ready();
      await Promise.race([daemon.allHalted, stop.requested]);
    } catch (error) {
      await stopInTime(daemon, state.config.shutdownTimeoutMs);
      throw error;
    }
    return await stopInTime(daemon, state.config.shutdownTimeoutMs);
  }

  /** Only with a file: otherwise SIGHUP asks for the end, as it does when a terminal is closed. */
  #reloadOnHangup(daemon: Daemon, logger: Logger, state: { config: Config }): Disposable {
    let reloads = Promise.resolve();
    const onHangup = (): void => {
      reloads = reloads.then(() => this.#reload(daemon, logger, state));
    };
    if (this.#configPath !== undefined) process.on('SIGHUP', onHangup);
    return { [Symbol.dispose]: () => process.off('SIGHUP', onHangup) };
  }

  async #reload(daemon: Daemon, logger: Logger, state: { config: Config }): Promise<void> {
    try {
      const config = this.#load();
      const { needsRestart, ...done } = await daemon.reload(config);
      state.config = config;
      logger.info(done, 'the config was read again');
      if (needsRestart.length > 0) logger.warn({ settings: needsRestart }, 'these settings apply after a restart');
    } catch (error) {
      logger.error({ error: messageOf(error) }, 'the config cannot be used; nothing was changed');
    }
  }

  #report(outcomes: readonly PipelineOutcome[], late: string | undefined): void {
    const errors = outcomes.map((outcome) => errorOf(outcome));
    const isSingle = this.#configPath === undefined;
    const error = late === undefined ? summaryOf(outcomes, errors, isSingle) : { code: 'TIMEOUT', message: late };
    if (this.#isJson) this.#terminal.out(this.#redaction.redact(this.#document(outcomes, errors, error)));
    if (error === undefined) return;
    throw new CommandFailure(this.#isJson && late === undefined ? '' : error.message, EXIT_FAILED, error.code);
  }

  /** Without a file there is one pipeline, which the document is about. */
  #document(
    outcomes: readonly PipelineOutcome[],
    errors: readonly (Problem | undefined)[],
    error: Problem | undefined,
  ): string {
    const reports = outcomes.map(({ name, status: { state, appended, batches } }, n) => ({
      name,
      report: { state, modes: this.#modes.get(name) ?? [], appended, batches, error: errors[n] },
    }));
    const all = { pipelines: Object.fromEntries(reports.map(({ name, report }) => [name, report])), error };
    const document = this.#configPath === undefined ? { ...reports[0]?.report, error } : all;
    return `${JSON.stringify(document)}\n`;
  }
}

/** Why a pipeline halted; `undefined` if it did not. */
function errorOf({ status: { state, error }, databaseUrl: url }: PipelineOutcome): Problem | undefined {
  return state === 'halted' ? problemOf(error, url) : undefined;
}

function summaryOf(
  outcomes: readonly PipelineOutcome[],
  errors: readonly (Problem | undefined)[],
  isSingle: boolean,
): Problem | undefined {
  const halted = outcomes.flatMap(({ name }, n) => {
    const error = errors[n];
    return error === undefined ? [] : [`${name}: ${error.message}`];
  });
  if (halted.length === 0) return undefined;
  if (isSingle) return errors[0];
  return {
    code: 'FAILED',
    message: `${halted.length} of ${outcomes.length} pipelines halted. ${halted.join(' ')}`,
  };
}

/** How long the process may still take after it gave up waiting: for its last words. */
const LAST_WORDS_MS = 300;

/** Resolves once all has stopped, or with a message when the time is over; then the process ends soon, whatever it does. */
async function stopInTime(daemon: Daemon, timeoutMs: number): Promise<string | undefined> {
  const stopped = new AbortController();
  const stopping = daemon.stop().finally(() => {
    stopped.abort();
  });
  await Promise.race([stopping, pause(timeoutMs, stopped.signal)]);
  if (stopped.signal.aborted) return undefined;
  setTimeout(() => process.exit(EXIT_FAILED), LAST_WORDS_MS).unref();
  const names = daemon.outcomes().flatMap(({ name, isStopped }) => (isStopped ? [] : [name]));
  return `Not stopped within ${timeoutMs} ms (shutdownTimeoutMs): ${names.join(', ') || 'HTTP'}. The process ends now; what was under way is done again at the next start.`;
}
