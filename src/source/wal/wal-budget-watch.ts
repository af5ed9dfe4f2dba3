import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { ControlConnection } from '../control-connection.ts';
import type { SourceBatch, SourceReader, SourceStatus } from '../source.ts';
import { dropSlot } from './slot.ts';
import {
  describeWalBudget,
  readSlotWal,
  walBudgetUse,
  walHolder,
  type WalBudgetLevel,
  type WalBudgetUse,
  type WalSample,
} from './wal-budget.ts';

/** What is done when the budget is used up. */
export type WalBudgetPolicy = 'warn' | 'drop-slot';

export interface WalBudgetWatchOptions {
  readonly connectionString: string;
  readonly slot: string;
  readonly budgetBytes: number;
  readonly policy: WalBudgetPolicy;
  readonly logger: Logger;
  /** Fires when the reading is over. */
  readonly signal: AbortSignal;
  /** @defaultValue 2_000 */
  readonly intervalMs?: number;
}

const INTERVAL_MS = 2_000;
/** Ten minutes at the default interval. */
const MOST_SAMPLES = 300;
const LEVELS: readonly WalBudgetLevel[] = ['low', 'half', 'most', 'full'];

/**
 * Looks every two seconds how much WAL the slot holds back; on a connection of its own, since whatever keeps the relay from
 * going on must not keep this from warning. Warns when a level of the budget is reached, once each time. Where the policy
 * says so, drops the slot when the budget is used up: its stream ends, and the relay goes on by polling.
 */
export class WalBudgetWatch {
  readonly #options: WalBudgetWatchOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #samples: WalSample[] = [];
  #connection: ControlConnection | undefined;
  #use: WalBudgetUse | undefined;
  #warned: WalBudgetLevel = 'low';
  #looking: Promise<void>;
  #isLooking = false;
  #stopped = false;

  constructor(options: WalBudgetWatchOptions) {
    this.#options = options;
    this.#looking = this.#look();
    this.#timer = setInterval(() => {
      if (!this.#isLooking) this.#looking = this.#look();
    }, options.intervalMs ?? INTERVAL_MS);
  }

  /** As of the last look. `undefined`: there has been none, or there is no slot. */
  get use(): WalBudgetUse | undefined {
    return this.#use;
  }

  /** May be called more than once. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    if (this.#connection !== undefined) await this.#connection.close(() => this.#looking);
    await this.#looking;
  }

  async #look(): Promise<void> {
    this.#isLooking = true;
    try {
      const connection = await this.#connected();
      if (connection !== undefined) await this.#sample(connection);
    } catch (error) {
      if (!this.#stopped)
        this.#options.logger.warn({ error: messageOf(error) }, 'the WAL budget could not be looked at');
    } finally {
      this.#isLooking = false;
    }
  }

  async #connected(): Promise<ControlConnection | undefined> {
    if (this.#connection?.lost.aborted === true) {
      await this.#connection.close();
      this.#connection = undefined;
    }
    const { connectionString, signal } = this.#options;
    const connection = (this.#connection ??= await ControlConnection.open(
      connectionString,
      'tailrace relay watch',
      signal,
    ));
    if (!this.#stopped) return connection;
    await connection.close();
    return undefined;
  }

  async #sample({ client }: ControlConnection): Promise<void> {
    const { slot, budgetBytes, policy, logger } = this.#options;
    const found = await readSlotWal(client, slot);
    if (found === undefined) {
      this.#forget();
      return;
    }
    this.#samples.push({ atMs: performance.now(), retainedBytes: found.retainedBytes });
    if (this.#samples.length > MOST_SAMPLES) this.#samples.shift();
    const use = walBudgetUse(this.#samples, budgetBytes);
    this.#use = use;
    this.#warn(use, describeWalBudget(slot, use, walHolder(found)));
    if (use.level !== 'full' || policy !== 'drop-slot') return;
    await dropSlot(client, slot);
    logger.error({ slot }, 'dropped the replication slot, whose WAL budget is used up; polling the outbox instead');
    this.#forget();
  }

  #forget(): void {
    this.#samples.length = 0;
    this.#use = undefined;
    this.#warned = 'low';
  }

  #warn(use: WalBudgetUse, sentence: string): void {
    const { logger, slot } = this.#options;
    const fields = { slot, retainedBytes: use.retainedBytes, budgetBytes: use.budgetBytes };
    if (LEVELS.indexOf(use.level) > LEVELS.indexOf(this.#warned)) {
      if (use.level === 'full') logger.error(fields, sentence);
      else logger.warn(fields, sentence);
    }
    this.#warned = use.level;
  }
}

/** A reader whose status tells of the budget too, and with which the watch ends. */
export class WatchedReader implements SourceReader {
  readonly #reader: SourceReader;
  readonly #watch: WalBudgetWatch;

  constructor(reader: SourceReader, watch: WalBudgetWatch) {
    this.#reader = reader;
    this.#watch = watch;
  }

  get status(): SourceStatus {
    const { use } = this.#watch;
    return use === undefined ? this.#reader.status : { ...this.#reader.status, walBudget: use };
  }

  next(signal: AbortSignal): Promise<SourceBatch> {
    return this.#reader.next(signal);
  }

  durable(): void {
    this.#reader.durable();
  }

  async close(): Promise<void> {
    await Promise.all([this.#watch.stop(), this.#reader.close()]);
  }
}
