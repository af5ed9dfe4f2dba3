import { TailraceError } from '../base/errors.ts';
import type { Service } from '../base/lifecycle.ts';
import type { Definition, PayloadOf } from '../message/definition.ts';
import { listenToPool } from '../postgres/pool-listener.ts';
import { loadTracing } from '../telemetry/load-tracing.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import type { AssignmentState } from './assigned-partition.ts';
import type { AttemptDurations } from './attempt-durations.ts';
import type { Circuit } from './circuit.ts';
import { noCounts, type ConsumerCounters } from './counters.ts';
import { removeEphemeralGroups } from './ephemeral-groups.ts';
import { ABORT_GRACE_MS } from './handler-call.ts';
import {
  HandlerRegistry,
  type BatchHandler,
  type BatchOptions,
  type DeliveryContext,
  type Handler,
  type HandlerContext,
  type HandlerOptions,
} from './handlers.ts';
import { Holdings } from './holdings.ts';
import type {
  AnyConsumerOptions,
  ConsumerMode,
  ConsumerOptions,
  ConsumerSettings,
  EphemeralConsumerOptions,
  PlainConsumerOptions,
} from './options.ts';
import { buildParts, problemOf, type Parts } from './parts.ts';
import { ProcessedUpkeep } from './processed-partitions.ts';
import { settingsOf } from './settings.ts';

/** A partition that this member has. `epoch` and `nextOffset` are bigint, which `JSON.stringify` takes only with a replacer. */
export interface AssignmentStatus {
  readonly topic: string;
  readonly partition: number;
  readonly epoch: bigint;
  /** Every record below it is handled or set aside. */
  readonly nextOffset: bigint;
  readonly state: AssignmentState;
}

/** What a consumer is doing. */
export interface ConsumerStatus extends Readonly<ConsumerCounters> {
  readonly state: 'idle' | 'starting' | 'running' | 'stopping' | 'stopped';
  readonly group: string;
  readonly memberId: string;
  readonly assignments: readonly AssignmentStatus[];
  /** How the group shares records out. */
  readonly mode: ConsumerMode;
  /** Of a work queue: records that this member has in hand, running ones included. They are nobody else's meanwhile. */
  readonly inHand: number;
  /** Handlers that run, and those whose commit is under way: these have left their place to others already. */
  readonly running: number;
  /** Records in memory: read ahead, running, or waiting for a retry. */
  readonly prefetched: number;
  /** Records of its partitions that are in the inbox and not handled. What was stored together counts until all of it is. */
  readonly stored: number;
  /** Offsets that were passed over, since retention had removed what was there: see `onOutOfRange`. */
  readonly lost: number;
  /** How long attempts took, for each topic that had one. */
  readonly attemptDurations: readonly AttemptDurations[];
  /** Whether handlers are called: `undefined` without the option `circuitBreaker`. */
  readonly circuit: Circuit['state'] | undefined;
  /** Records, or batches of them, that are in memory and wait for a limit. */
  readonly limited: number;
  /** What keeps it from the group or from the log, while something does. */
  readonly problem: string | undefined;
}

/** A member of a consumer group. */
export interface Consumer<Context = HandlerContext> extends Service {
  /**
   * Joins the group; resolves once it handles messages, and throws what keeps it from that, as where the database cannot be
   * reached. It has then let go of everything, and may be started again.
   */
  start(): Promise<void>;
  /**
   * Handles messages of one type, each in a transaction that commits with the row that says so. Messages of one key come in
   * order. To be called before `start`.
   *
   * @throws TailraceError `DUPLICATE_HANDLER`, `INVALID_OPTION`.
   */
  on<D extends Definition>(definition: D, handler: Handler<PayloadOf<D>, Context>, options?: HandlerOptions): this;
  /**
   * Handles neighbouring messages of one type together, in one transaction. The partitions of its topic are then handled
   * in order throughout, whatever the keys. To be called before `start`.
   *
   * @throws TailraceError `DUPLICATE_HANDLER`.
   */
  onBatch<D extends Definition>(definition: D, handler: BatchHandler<PayloadOf<D>, Context>): this;
  onBatch<D extends Definition>(
    definition: D,
    options: BatchOptions,
    handler: BatchHandler<PayloadOf<D>, Context>,
  ): this;
  /** What it is doing now. */
  status(): ConsumerStatus;
}

/**
 * Makes a member of a consumer group. The group shares out the partitions of the topics that it has handlers for; each
 * message is handled once by the group: its effect, the row that says so and the check that the partition is still this
 * member's are one transaction.
 *
 * `start` throws `NOT_MIGRATED`, `INVALID_OPTION` (no handlers), and what the database or the log throws.
 *
 * @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`.
 */
export function createConsumer(options: PlainConsumerOptions | EphemeralConsumerOptions): Consumer<DeliveryContext>;
export function createConsumer(options: ConsumerOptions): Consumer;
export function createConsumer(options: AnyConsumerOptions): Consumer<never> {
  return new GroupConsumer(settingsOf(options));
}

/** How often ephemeral groups of processes that are gone are looked for. */
const SWEEP_MS = 30_000;

class GroupConsumer implements Consumer<never> {
  readonly #settings: ConsumerSettings;
  readonly #tracing: Tracing | undefined = loadTracing();
  readonly #registry: HandlerRegistry;
  readonly #holdings: Holdings;
  readonly #upkeep: ProcessedUpkeep;
  #state: ConsumerStatus['state'] = 'idle';
  #parts: Parts | undefined;
  #hasJoined = false;
  #starting: Promise<void> = Promise.resolve();
  #stopping: Promise<void> | undefined;
  #sweep: NodeJS.Timeout | undefined;
  /** Ends the listening to the pool. */
  #unlisten: () => void = () => undefined;

  constructor(settings: ConsumerSettings) {
    this.#settings = settings;
    this.#registry = new HandlerRegistry(settings.batchRecords);
    this.#holdings = new Holdings(settings);
    this.#upkeep = new ProcessedUpkeep(settings);
  }

  on<D extends Definition>(definition: D, handler: Handler<PayloadOf<D>, never>, options: HandlerOptions = {}): this {
    this.#assertIdle('on');
    this.#registry.addSingle(definition, options, handler);
    return this;
  }

  onBatch<D extends Definition>(
    definition: D,
    options: BatchOptions | BatchHandler<PayloadOf<D>, never>,
    handler?: BatchHandler<PayloadOf<D>, never>,
  ): this {
    this.#assertIdle('onBatch');
    if (typeof options === 'function' && handler === undefined) this.#registry.addBatch(definition, {}, options);
    else this.#registry.addBatch(definition, options as BatchOptions, handler);
    return this;
  }

  status(): ConsumerStatus {
    const { partitions } = this.#holdings;
    const counters = this.#parts?.dispatcher.counters;
    return {
      ...noCounts(),
      ...counters,
      state: this.#state,
      group: this.#settings.group,
      memberId: this.#settings.memberId,
      assignments: partitions.map(({ topic, partition, epoch, nextOffset, state }) => ({
        topic,
        partition,
        epoch,
        nextOffset,
        state,
      })),
      mode: this.#settings.mode,
      inHand: this.#parts?.work?.inHand ?? 0,
      running: this.#parts?.dispatcher.running ?? 0,
      prefetched: [...partitions, ...(this.#parts?.work?.ranges ?? [])].reduce((sum, { records }) => sum + records, 0),
      circuit: this.#parts?.dispatcher.circuit,
      limited: this.#parts?.dispatcher.limited ?? 0,
      stored: partitions.reduce((sum, { inbox }) => sum + inbox.records, 0),
      lost: (this.#parts?.fetcher.lost ?? 0) + (this.#parts?.inbox.lost ?? 0),
      attemptDurations: this.#parts?.dispatcher.durations.read() ?? [],
      problem: problemOf(this.#parts),
    };
  }

  async start(): Promise<void> {
    this.#assertIdle('start');
    if (this.#registry.topics.length === 0) {
      throw new TailraceError('INVALID_OPTION', 'This consumer has no handlers. Call on or onBatch before start.');
    }
    if (this.#registry.movesCursor && this.#settings.delivery !== 'effectively-once') {
      throw new TailraceError(
        'INVALID_OPTION',
        `A batch handler has cursor: 'in-transaction', and delivery is ${this.#settings.delivery}, which has no transaction. Leave one of them out.`,
      );
    }
    this.#assertFitsMode();
    this.#state = 'starting';
    this.#starting = this.#start();
    await this.#starting;
  }

  #assertFitsMode(): void {
    if (this.#settings.mode !== 'work-queue') return;
    const problem = this.#registry.movesCursor
      ? "a batch handler has cursor: 'in-transaction', and no member of a work queue can move the group's place"
      : this.#registry.hasStrict
        ? "a handler has deadLetters: 'strict', and the keys of a work queue have no order"
        : undefined;
    if (problem === undefined) return;
    throw new TailraceError('INVALID_OPTION', `mode is work-queue, and ${problem}. Leave one of them out.`);
  }

  async stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    await this.#stopping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #start(): Promise<void> {
    const parts = buildParts(this.#settings, this.#registry, this.#tracing, this.#holdings);
    this.#parts = parts;
    this.#holdings.attach(parts);
    this.#unlisten = listenToPool(this.#settings.database, ({ message: error }) => {
      const { group, memberId, logger } = this.#settings;
      logger.warn({ group, memberId, error }, 'An idle connection of the pool was lost');
    });
    try {
      await parts.membership.start();
    } catch (error) {
      this.#forgetStart();
      throw error;
    }
    this.#hasJoined = true;
    await this.#upkeep.start();
    await removeEphemeralGroups(this.#settings);
    this.#sweep = setInterval(() => void removeEphemeralGroups(this.#settings), SWEEP_MS);
    parts.feeder.start();
    parts.fetcher.start();
    parts.inbox.start();
    if (parts.work !== undefined) parts.ends.start();
    this.#state = 'running';
  }

  /** As if it had not been started, so that it can be again. */
  #forgetStart(): void {
    this.#holdings.forgetAll();
    this.#holdings.attach(undefined);
    this.#unlisten();
    this.#parts = undefined;
    this.#state = 'idle';
  }

  async #stop(): Promise<void> {
    if (this.#state === 'running') this.#state = 'stopping';
    await this.#starting.catch(() => undefined); // its caller has been told
    if (this.#parts !== undefined && this.#hasJoined) await this.#leave(this.#parts);
    this.#unlisten();
    this.#state = 'stopped';
  }

  async #leave(parts: Parts): Promise<void> {
    this.#state = 'stopping';
    clearInterval(this.#sweep);
    for (const partition of this.#holdings.all) this.#holdings.wind(partition);
    const feeding = parts.feeder.stop();
    await Promise.all([parts.fetcher.stop(), parts.inbox.stop(), parts.ends.stop()]);
    parts.membership.retire();
    await this.#drain(parts);
    await feeding;
    parts.dispatcher.stop();
    await this.#upkeep.stop();
    await parts.membership.stop();
    this.#holdings.forgetAll();
  }

  /** Lets handlers end by themselves, then asks them to, then ends their transactions. */
  async #drain(parts: Parts): Promise<void> {
    if (await this.#isIdleWithin(parts, this.#settings.drainTimeoutMs)) return;
    for (const partition of this.#holdings.all) partition.hurry();
    if (await this.#isIdleWithin(parts, ABORT_GRACE_MS)) return;
    const { group, memberId, logger } = this.#settings;
    logger.error(
      { group, memberId, running: parts.dispatcher.running },
      'Handlers did not end: their transactions are undone',
    );
    for (const partition of this.#holdings.all) if (partition.running > 0) this.#holdings.lose(partition);
  }

  async #isIdleWithin({ dispatcher }: Parts, timeoutMs: number): Promise<boolean> {
    const deadline = performance.now() + timeoutMs;
    while (dispatcher.running > 0 && performance.now() < deadline) {
      await this.#holdings.progress.wait(deadline - performance.now());
    }
    return dispatcher.running === 0;
  }

  #assertIdle(method: string): void {
    if (this.#state === 'idle' && this.#stopping === undefined) return;
    throw new TailraceError(
      'STOPPED',
      `This consumer has been started or stopped: ${method} comes before that, and start only once, unless it failed. Make a new consumer.`,
    );
  }
}
