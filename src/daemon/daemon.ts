import { readFileSync } from 'node:fs';
import { createAdminServer, type AdminServer } from '../admin/admin-server.ts';
import { messageOf, TailraceError } from '../base/errors.ts';
import type { Service } from '../base/lifecycle.ts';
import type { Logger } from '../base/logger.ts';
import type { Config } from '../config/schema.ts';
import type { RelayStatus } from '../relay/relay.ts';
import { Pipeline, planReload, type PipelineEvents, type ReloadPlan } from './pipelines.ts';

export interface DaemonOptions {
  readonly config: Config;
  readonly logger: Logger;
  /** Takes secrets out of what is shown over HTTP. */
  readonly redact: (text: string) => string;
  /** Called soon after a pipeline's state, mode or reason has changed. */
  readonly onStatusChange: (name: string, status: RelayStatus) => void;
}

/** What a reload did. */
export interface ReloadReport extends ReloadPlan {
  /** Settings that changed and apply only to a new process. */
  readonly needsRestart: readonly string[];
}

/** How a pipeline ended, or how it is. */
export interface PipelineOutcome {
  readonly name: string;
  readonly databaseUrl: string;
  readonly status: RelayStatus;
  readonly isStopped: boolean;
}

/**
 * Several relays in one process, each on its own: what halts one leaves the others alone. Handles no signals, which is the
 * program's business.
 */
export class Daemon implements Service {
  /** Resolves when all pipelines have halted: nothing is left to do. Stays pending otherwise. */
  readonly allHalted: Promise<unknown>;
  readonly #options: DaemonOptions;
  readonly #events: PipelineEvents;
  readonly #pipelines = new Map<string, Pipeline>();
  readonly #admin: AdminServer | undefined;
  readonly #onAllHalted: () => void;
  #config: Config;
  #isStopping = false;

  /** @throws TailraceError `INVALID_CONFIG`: the HTTP interface would stand open, or its certificate cannot be read. */
  constructor(options: DaemonOptions) {
    const { config, logger, onStatusChange } = options;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.allHalted = promise;
    this.#onAllHalted = () => resolve(undefined);
    this.#options = options;
    this.#config = config;
    this.#events = {
      logger,
      onStatusChange,
      onHalt: () => {
        this.#lookForLife();
      },
    };
    this.#admin = this.#createAdmin();
    for (const [name, pipeline] of Object.entries(config.pipelines)) this.#add(name, pipeline);
  }

  /** Resolves once HTTP is served and every pipeline has begun; waits for no database. */
  async start(): Promise<void> {
    await this.#admin?.start();
    if (this.#admin !== undefined) {
      this.#options.logger.info({ url: this.#admin.url }, 'serving /livez, /readyz, /metrics and /status');
    }
    for (const pipeline of this.#all()) this.#begin(pipeline);
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#all().map((pipeline) => pipeline.stop()));
    await this.#admin?.stop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** Takes over what can change while it runs. What could not be built changes nothing. One at a time. */
  async reload(config: Config): Promise<ReloadReport> {
    const needsRestart = restartNeeds(this.#config, config);
    const plan = planReload(this.#all(), config.pipelines);
    const fresh = [...plan.added, ...plan.restarted].flatMap((name) => {
      const pipeline = config.pipelines[name];
      return pipeline === undefined ? [] : [new Pipeline(name, pipeline, this.#events)];
    });
    this.#config = config;
    await Promise.all([...plan.removed, ...plan.restarted].map((name) => this.#remove(name)));
    for (const pipeline of fresh) {
      this.#pipelines.set(pipeline.name, pipeline);
      if (!this.#isStopping) this.#begin(pipeline);
    }
    this.#lookForLife();
    return { ...plan, needsRestart };
  }

  /** Every pipeline and how it is, in the order of their names. */
  outcomes(): PipelineOutcome[] {
    return this.#all()
      .map((pipeline) => ({
        name: pipeline.name,
        databaseUrl: pipeline.config.databaseUrl.reveal(),
        status: pipeline.status(),
        isStopped: pipeline.isStopped,
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #lookForLife(): void {
    if (this.#all().every(({ isHalted }) => isHalted)) this.#onAllHalted();
  }

  #all(): Pipeline[] {
    return [...this.#pipelines.values()];
  }

  #add(name: string, config: Config['pipelines'][string]): void {
    this.#pipelines.set(name, new Pipeline(name, config, this.#events));
  }

  /** Figures are read only where they are served. */
  #begin(pipeline: Pipeline): void {
    pipeline.start(this.#admin !== undefined);
  }

  async #remove(name: string): Promise<void> {
    await this.#pipelines.get(name)?.stop();
    this.#pipelines.delete(name);
  }

  #createAdmin(): AdminServer | undefined {
    const { http } = this.#config;
    const { port, tls, ...rest } = http;
    if (port === undefined) return undefined;
    return createAdminServer({
      ...rest,
      port,
      tls: tls === undefined ? undefined : { cert: pem('certFile', tls.certFile), key: pem('keyFile', tls.keyFile) },
      pipelines: () => this.#all(),
      redact: this.#options.redact,
    });
  }
}

function pem(setting: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new TailraceError('INVALID_CONFIG', `http.tls.${setting} cannot be read: ${messageOf(error)}.`, {
      cause: error,
    });
  }
}

/** Which groups of settings changed that only a new process takes over. */
function restartNeeds(old: Config, next: Config): string[] {
  const changed = (a: Config['http'], b: Config['http']): boolean =>
    JSON.stringify({ ...a, token: a.token?.reveal() }) !== JSON.stringify({ ...b, token: b.token?.reveal() });
  return [
    ...(changed(old.http, next.http) ? ['http'] : []),
    ...(old.log.format === next.log.format ? [] : ['log.format']),
  ];
}
