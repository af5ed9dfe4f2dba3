import { FiguresWatch } from '../admin/figures-watch.ts';
import type { FiguresReading, ObservedPipeline } from '../admin/observed-pipeline.ts';
import type { Logger } from '../base/logger.ts';
import type { PipelineConfig } from '../config/schema.ts';
import type { RelayStatus } from '../relay/relay.ts';
import { createRelayDaemon, type RelayDaemon } from './relay-daemon.ts';

/** What pipelines are watched by. */
export interface PipelineEvents {
  readonly logger: Logger;
  /** Called soon after a pipeline's state, mode or reason has changed. */
  readonly onStatusChange: (name: string, status: RelayStatus) => void;
  /** Called when a pipeline has halted. */
  readonly onHalt: (name: string) => void;
}

/** A relay of a daemon, with what reads its figures. */
export class Pipeline implements ObservedPipeline {
  readonly name: string;
  readonly config: PipelineConfig;
  readonly #relay: RelayDaemon;
  readonly #watch: FiguresWatch;
  #isStopped = false;

  /** @throws TailraceError `INVALID_OPTION`. */
  constructor(name: string, config: PipelineConfig, { logger: all, onStatusChange, onHalt }: PipelineEvents) {
    const { databaseUrl, schema, mode, slot, failoverSlot, walBudgetBytes, onWalBudget, leaseMs, log, maintenance } =
      config;
    const logger = withFields(all, { pipeline: name });
    this.name = name;
    this.config = config;
    this.#relay = createRelayDaemon({
      ...{ databaseUrl: databaseUrl.reveal(), schema, mode, failoverSlot, onWalBudget, leaseMs, log, logger },
      maintenance: maintenance.enabled && { keepOutboxMs: maintenance.keepOutboxMs },
      ...(slot !== undefined && { slot }),
      ...(walBudgetBytes !== undefined && { walBudgetBytes }),
      onStatusChange: (status) => onStatusChange(name, status),
    });
    this.#watch = new FiguresWatch({ databaseUrl, schema, slot, logger });
    void this.#relay.halted.then(() => onHalt(name));
  }

  /** Begins, and waits for nothing: a server that is down keeps nobody else from working. */
  start(isObserved: boolean): void {
    this.#relay.start().catch(() => undefined); // it has halted, has logged why, and says so in its status
    if (isObserved) void this.#watch.start();
  }

  async stop(): Promise<void> {
    await Promise.all([this.#relay.stop(), this.#watch.stop()]);
    this.#isStopped = true;
  }

  get isHalted(): boolean {
    return this.status().state === 'halted';
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  status(): RelayStatus {
    return this.#relay.status();
  }

  figures(): FiguresReading {
    return this.#watch.current();
  }
}

/** What a new configuration asks for. */
export interface ReloadPlan {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  /** Changed, or halted: what halted may be mended. */
  readonly restarted: readonly string[];
}

/** Decides what is to be done with pipelines that run, as they are and as they are wanted. */
export function planReload(
  running: readonly { readonly name: string; readonly config: PipelineConfig; readonly isHalted: boolean }[],
  wanted: Readonly<Record<string, PipelineConfig>>,
): ReloadPlan {
  const names = Object.keys(wanted);
  const known = new Set(running.map(({ name }) => name));
  return {
    added: names.filter((name) => !known.has(name)),
    removed: running.filter(({ name }) => !names.includes(name)).map(({ name }) => name),
    restarted: running
      .filter(({ name, config, isHalted }) => {
        const next = wanted[name];
        return next !== undefined && (isHalted || fingerprint(config) !== fingerprint(next));
      })
      .map(({ name }) => name),
  };
}

function fingerprint(config: PipelineConfig): string {
  return JSON.stringify({ ...config, databaseUrl: config.databaseUrl.reveal() });
}

function withFields(logger: Logger, own: object): Logger {
  return {
    debug: (fields, message) => logger.debug({ ...own, ...fields }, message),
    info: (fields, message) => logger.info({ ...own, ...fields }, message),
    warn: (fields, message) => logger.warn({ ...own, ...fields }, message),
    error: (fields, message) => logger.error({ ...own, ...fields }, message),
  };
}
