import { TailraceError } from '../base/errors.ts';
import type { Service } from '../base/lifecycle.ts';
import { Signal } from '../base/signal.ts';
import type { Definition, PayloadOf } from '../message/definition.ts';
import { listenToPool } from '../postgres/pool-listener.ts';
import { loadTracing } from '../telemetry/load-tracing.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import { AssignedPartition, type AssignmentState } from './assigned-partition.ts';
import { Attempts } from './attempt.ts';
import type { AttemptDurations } from './attempt-durations.ts';
import type { Circuit } from './circuit.ts';
import { Dispatcher, noCounts, type ConsumerCounters } from './dispatcher.ts';
import { Fetcher, type FetchLimits } from './fetcher.ts';
import type { LogRecord } from '../broker/record.ts';
import type { TakenPartition } from './group-tables.ts';
import { ABORT_GRACE_MS } from './handler-call.ts';
import { HandlerTransactions } from './handler-transaction.ts';
import {
  HandlerRegistry,
  type BatchHandler,
  type BatchOptions,
  type DeliveryContext,
  type Handler,
  type HandlerContext,
  type HandlerOptions,
} from './handlers.ts';
import { EndWatch } from './end-watch.ts';
import { Inbox } from './inbox.ts';
import { Membership } from './membership.ts';
import type { Origin } from './origin.ts';
import type {
  AnyConsumerOptions,
  ConsumerMode,
  ConsumerOptions,
  ConsumerSettings,
  EphemeralConsumerOptions,
  PlainConsumerOptions,
} from './options.ts';
import { ParkedFeeder, SAFETY_MS } from './parked-feeder.ts';
import { ParkedMessages, type ParkedPlace } from './parked-messages.ts';
import { ProcessedUpkeep } from './processed-partitions.ts';
import { removeEphemeralGroups } from './ephemeral-groups.ts';
import { planRangeFetch } from './prefetch.ts';
import { settingsOf } from './settings.ts';
import { partitionName } from './sync-plan.ts';
import { TopicWatch } from './topic-watch.ts';
import { WorkQueue } from './work-queue.ts';
import { WorkRange } from './work-range.ts';

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
  /** Handlers that run. */
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
  readonly #partitions = new Set<AssignedPartition>();
  readonly #drainTimers = new Map<AssignedPartition, NodeJS.Timeout>();
  readonly #progress = new Signal();
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
    if (typeof options === 'function') this.#registry.addBatch(definition, {}, options);
    else this.#registry.addBatch(definition, options, handler);
    return this;
  }

  status(): ConsumerStatus {
    const partitions = [...this.#partitions];
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
    const parts = this.#build();
    this.#parts = parts;
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
    this.#parts?.work?.loseAll();
    for (const partition of this.#partitions) this.#forget(partition, 'lost');
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
    for (const partition of this.#all()) this.#wind(partition);
    const feeding = parts.feeder.stop();
    await Promise.all([parts.fetcher.stop(), parts.inbox.stop(), parts.ends.stop()]);
    parts.membership.retire();
    await this.#drain(parts);
    await feeding;
    parts.dispatcher.stop();
    await this.#upkeep.stop();
    await parts.membership.stop();
    parts.work?.loseAll();
    for (const partition of this.#partitions) this.#forget(partition, 'lost');
  }

  /** Lets handlers end by themselves, then asks them to, then ends their transactions. */
  async #drain(parts: Parts): Promise<void> {
    if (await this.#isIdleWithin(parts, this.#settings.drainTimeoutMs)) return;
    for (const partition of this.#all()) partition.hurry();
    if (await this.#isIdleWithin(parts, ABORT_GRACE_MS)) return;
    const { group, memberId, logger } = this.#settings;
    logger.error(
      { group, memberId, running: parts.dispatcher.running },
      'Handlers did not end: their transactions are undone',
    );
    for (const partition of this.#all()) if (partition.running > 0) this.#lose(partition);
  }

  async #isIdleWithin({ dispatcher }: Parts, timeoutMs: number): Promise<boolean> {
    const deadline = performance.now() + timeoutMs;
    while (dispatcher.running > 0 && performance.now() < deadline) {
      await this.#progress.wait(deadline - performance.now());
    }
    return dispatcher.running === 0;
  }

  #build(): Parts {
    const settings = this.#settings;
    const { topics } = this.#registry;
    const watch = new TopicWatch(settings, topics);
    const work = settings.mode === 'work-queue' ? this.#workQueue(() => ends.ends) : undefined;
    const membership = new Membership<AssignedPartition>(
      settings,
      topics,
      watch,
      {
        holdings: () => [...this.#partitions],
        taken: (taken, origin) => this.#take(taken, origin),
        revoked: (partition) => this.#revoke(partition),
        released: (partition) => this.#forget(partition, 'released'),
        lost: (partition, isMoved) => this.#lose(partition, isMoved),
        topicsChanged: () => this.#readAnew(),
        reachExtended: () => this.#readAnew(),
        parkedChanged: () => this.#parts?.feeder.changed(),
        dueAfter: (ms) => this.#parts?.feeder.expect(ms),
      },
      work,
    );
    const transactions = new HandlerTransactions(settings, {
      mayCommit: (partition) => partition.mayCommit && membership.isTrusted,
      elsewhere: () => membership.reconnect(),
    });
    const messages = new ParkedMessages(settings.schema, settings.group);
    const dispatcher: Dispatcher = new Dispatcher(
      settings,
      this.#registry,
      {
        attempts: new Attempts(settings, transactions, messages, this.#tracing),
        recordBegun: (partition, deliveries) => {
          const records = deliveries.map(({ record }) => record);
          return transactions.ask(partition, (client) => messages.recordBegun(client, partition, records));
        },
        countSuspect: ({ partition, record, parked }) =>
          transactions.ask(partition, async (client) =>
            parked === undefined
              ? messages.countSuspect(client, partition, record)
              : ((await messages.countCrash(client, parked)) ?? 0),
          ),
        find: ({ partition, target }) =>
          transactions.ask(partition, (client) =>
            'offset' in target
              ? messages.lookAtPlace(client, { ...placeOf(partition), offset: target.offset })
              : messages.lookAtKey(client, partition, target.key),
          ),
      },
      {
        progressed: (partition) => this.#progressed(partition),
        lost: (partition) => this.#lose(partition),
        dueAfter: (ms, partition) => {
          feeder.expect(ms);
          // The owner of the partition looks by itself now and then.
          if (partition.lease !== undefined && ms < SAFETY_MS) membership.expectDue(ms);
        },
      },
    );
    const feeder: ParkedFeeder = new ParkedFeeder(settings, messages, transactions, {
      partitions: () => [...this.#partitions].filter(({ state }) => state === 'owned'),
      loaded: () => this.#readAnew(),
      look: (partition, target) => dispatcher.look(partition, target),
    });
    const owned = (): AssignedPartition[] => [...this.#partitions].filter(({ state }) => state === 'owned');
    const mayBegin = ({ parked, isAtReach }: AssignedPartition): boolean => parked.isLoaded && !isAtReach;
    const accept = (partition: AssignedPartition, records: readonly LogRecord[]): void => {
      dispatcher.accept(partition, records);
      if (partition.isNearReach) membership.wake();
    };
    const inbox: Inbox = new Inbox(settings, transactions, {
      partitions: () => (work === undefined ? owned() : []), // a work queue reads ranges of the log
      mayBegin,
      exists: (topic) => watch.exists(topic),
      accept,
      ready: () => fetcher.reassigned(),
      lost: (partition) => this.#lose(partition),
    });
    const fetcher: PartitionFetcher =
      work === undefined
        ? new Fetcher<AssignedPartition>(settings, {
            aim: 'fetch from the log',
            partitions: () =>
              owned().filter((each) => mayBegin(each) && inbox.isPassed(each) && watch.exists(each.topic)),
            fetch: (partitions, limits) => fetchFrom(settings, partitions, limits),
            accept,
          })
        : rangeFetcher(settings, work, dispatcher, () => membership.wake());
    const ends: EndWatch = new EndWatch(settings, {
      partitions: () =>
        owned().filter(
          (partition) =>
            partition.parked.isLoaded &&
            watch.exists(partition.topic) &&
            (work?.backlogOf(partition) ?? 0n) < MOST_KNOWN_BACKLOG,
        ),
      learned: () => membership.wake(),
    });
    return { membership, transactions, dispatcher, fetcher, inbox, feeder, work, ends };
  }

  #workQueue(ends: () => ReadonlyMap<string, bigint>): WorkQueue {
    return new WorkQueue(this.#settings, {
      taken: () => this.#parts?.fetcher.reassigned(),
      revoked: (range) => this.#revoke(range),
      released: (range) => this.#forget(range, 'released'),
      lost: (range, isMoved) => this.#forgetLost(range, isMoved),
      ends,
      mayTake: () => this.#parts?.dispatcher.circuit !== 'open',
      synced: (marks) => {
        for (const partition of this.#partitions) partition.skipTo(marks.get(partitionName(partition)) ?? 0n);
        this.#parts?.ends.changed();
      },
    });
  }

  /** All that this member has. */
  #all(): AssignedPartition[] {
    return [...this.#partitions, ...(this.#parts?.work?.ranges ?? [])];
  }

  #take(taken: TakenPartition, origin: Origin): void {
    this.#partitions.add(new AssignedPartition(taken, origin, this.#settings.concurrency));
    this.#parts?.feeder.taken();
    this.#parts?.inbox.taken();
  }

  #readAnew(): void {
    this.#parts?.fetcher.reassigned();
    this.#parts?.inbox.reassigned();
    this.#parts?.ends.changed();
  }

  #revoke(partition: AssignedPartition): void {
    this.#wind(partition);
    if (partition.drained) this.#parts?.membership.wake();
    else if (partition.revoking) this.#setDrainTimer(partition);
    if (partition instanceof WorkRange && partition.givenBack.length > 0) this.#parts?.membership.wake();
  }

  /** Begins nothing more of a partition. */
  #wind(partition: AssignedPartition): void {
    if (partition.state !== 'owned') return;
    partition.revoke();
    const dropped = this.#parts?.dispatcher.drop(partition) ?? [];
    if (partition instanceof WorkRange) partition.giveBackRest(dropped);
  }

  /** A handler that does not end is not to keep the partition from its next owner for ever. */
  #setDrainTimer(partition: AssignedPartition): void {
    const { drainTimeoutMs } = this.#settings;
    const hurry = (): void => {
      partition.hurry();
      this.#drainTimers.set(
        partition,
        setTimeout(() => this.#lose(partition), ABORT_GRACE_MS),
      );
    };
    this.#drainTimers.set(partition, setTimeout(hurry, drainTimeoutMs));
  }

  #progressed(partition: AssignedPartition): void {
    this.#progress.notify();
    const wants = partition instanceof WorkRange ? this.#parts?.work?.wantsSync(partition) : partition.drained;
    if (wants === true) this.#parts?.membership.wake();
    if (partition instanceof WorkRange) this.#parts?.fetcher.resume();
    else if (!partition.drained) {
      this.#parts?.fetcher.freed(partition);
      this.#parts?.inbox.freed(partition);
    }
  }

  #lose(partition: AssignedPartition, isMoved = false): void {
    if (partition instanceof WorkRange) this.#parts?.work?.lose(partition, isMoved);
    else if (this.#partitions.has(partition)) this.#forgetLost(partition, isMoved);
  }

  #forgetLost(partition: AssignedPartition, isMoved: boolean): void {
    this.#forget(partition, 'lost');
    const { group, memberId, logger } = this.#settings;
    const { topic, epoch } = partition;
    const fields = {
      group,
      memberId,
      code: 'ASSIGNMENT_LOST',
      topic,
      partition: partition.partition,
      epoch: `${epoch}`,
    };
    if (isMoved) {
      logger.info(
        { ...fields, reason: 'moved' },
        "The group's place in a partition was moved: what was under way is undone",
      );
    } else {
      logger.warn(fields, 'A partition was lost: what was under way in it is undone');
    }
    this.#parts?.membership.wake();
  }

  #forget(partition: AssignedPartition, end: 'released' | 'lost'): void {
    clearTimeout(this.#drainTimers.get(partition));
    this.#drainTimers.delete(partition);
    this.#partitions.delete(partition);
    partition.end(end);
    this.#parts?.dispatcher.drop(partition);
    this.#parts?.transactions.cutOff(partition);
  }

  #assertIdle(method: string): void {
    if (this.#state === 'idle' && this.#stopping === undefined) return;
    throw new TailraceError(
      'STOPPED',
      `This consumer has been started or stopped: ${method} comes before that, and start only once, unless it failed. Make a new consumer.`,
    );
  }
}

/** What is asked of whatever reads. */
type PartitionFetcher = Pick<
  Fetcher<AssignedPartition>,
  'start' | 'stop' | 'freed' | 'resume' | 'reassigned' | 'lost' | 'problem'
>;

/** What a consumer is made of once it starts. */
interface Parts {
  readonly membership: Membership<AssignedPartition>;
  readonly transactions: HandlerTransactions;
  readonly dispatcher: Dispatcher;
  readonly fetcher: PartitionFetcher;
  readonly inbox: Inbox;
  readonly feeder: ParkedFeeder;
  /** Of a work queue. */
  readonly work: WorkQueue | undefined;
  /** Idle unless this is a work queue. */
  readonly ends: EndWatch;
}

/** So many records that are known and not dealt are enough: nobody looks for more. */
const MOST_KNOWN_BACKLOG = 10_000n;

/** Reads the ranges of a work queue, each to its end. */
function rangeFetcher(
  settings: ConsumerSettings,
  work: WorkQueue,
  dispatcher: Dispatcher,
  wake: () => void,
): Fetcher<WorkRange> {
  return new Fetcher<WorkRange>(settings, {
    aim: 'fetch from the log',
    partitions: () => work.ranges.filter((range) => range.state === 'owned' && !range.isFetched),
    fetch: (ranges, limits) => fetchFrom(settings, ranges, limits),
    accept: (range, records) => {
      const inRange = records.filter(({ offset }) => offset < range.to);
      dispatcher.accept(range, inRange);
      if (inRange.length < records.length) range.skipTo(range.to); // compaction has left the rest out
      if (work.wantsSync(range)) wake();
    },
    plan: planRangeFetch,
  });
}

function fetchFrom(
  { log }: ConsumerSettings,
  partitions: readonly AssignedPartition[],
  limits: FetchLimits,
): Promise<LogRecord[]> {
  return log.fetch(
    partitions.map(({ fetchPosition }) => fetchPosition),
    limits,
  );
}

function problemOf(parts: Parts | undefined): string | undefined {
  if (parts === undefined) return undefined;
  const { membership, feeder, fetcher, inbox, ends } = parts;
  return membership.problem ?? feeder.problem ?? fetcher.problem ?? inbox.problem ?? ends.problem;
}

function placeOf({ topic, partition, generation }: AssignedPartition): Omit<ParkedPlace, 'offset'> {
  return { topic, partition, generation };
}
