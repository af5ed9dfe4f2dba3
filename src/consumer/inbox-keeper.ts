import { backoffMs } from '../base/backoff.ts';
import { messageOf } from '../base/errors.ts';
import { Signal, pause } from '../base/signal.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import { inGroup } from './group-admin.ts';
import type { HandlerTransactions } from './handler-transaction.ts';
import { forkOf } from './inbox-fork.ts';
import type { InboxTable } from './inbox-table.ts';
import type { ConsumerSettings } from './options.ts';
import { elsewhere } from './origin.ts';

/** How long handlers wait for a log that does not answer, before they begin what is stored. */
const ANSWER_WITHIN_MS = 5_000;

type KeeperSettings = Pick<
  ConsumerSettings,
  'log' | 'database' | 'schema' | 'schemaName' | 'group' | 'memberId' | 'cursorIntervalMs' | 'logger'
>;

/** What the keeper asks and tells. */
export interface KeeperEvents {
  /** The partitions that this member owns. */
  partitions(): readonly AssignedPartition[];
  /** What is stored of partitions may be read, or added to. */
  ready(): void;
  /** A partition's assignment has ended. */
  lost(partition: AssignedPartition): void;
}

/**
 * Looks after what is stored of this member's partitions: compares what former owners have stored with the log, finds out how
 * much it is, and removes what is handled.
 */
export class InboxKeeper {
  readonly #settings: KeeperSettings;
  readonly #table: InboxTable;
  readonly #transactions: HandlerTransactions;
  readonly #events: KeeperEvents;
  readonly #stopped = new AbortController();
  readonly #wake = new Signal();
  readonly #checking = new Set<AssignedPartition>();
  #loop: Promise<void> = Promise.resolve();
  /** On the monotonic clock. */
  #trimDueAt = 0;
  #problem: string | undefined;

  constructor(settings: KeeperSettings, table: InboxTable, transactions: HandlerTransactions, events: KeeperEvents) {
    this.#settings = settings;
    this.#table = table;
    this.#transactions = transactions;
    this.#events = events;
  }

  /** What keeps it from its work, while something does. */
  get problem(): string | undefined {
    return this.#problem;
  }

  start(): void {
    this.#loop = this.#run(this.#stopped.signal);
  }

  /** There is something to do for a partition. */
  wake(): void {
    this.#wake.notify();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#loop;
  }

  async #run(stopped: AbortSignal): Promise<void> {
    let failures = 0;
    while (!stopped.aborted) {
      try {
        await this.#step(stopped);
        failures = 0;
        this.#problem = undefined;
      } catch (error) {
        failures += 1;
        this.#report(error, failures);
      }
      const waitMs = failures > 0 ? backoffMs(failures) : this.#waitMs;
      await this.#wake.wait(waitMs, stopped);
    }
  }

  get #waitMs(): number {
    const isBusy = this.#events.partitions().some(({ inbox }) => !inbox.isOfLog || inbox.trimmedTo < inbox.to);
    return isBusy ? this.#settings.cursorIntervalMs : Number.POSITIVE_INFINITY;
  }

  async #step(stopped: AbortSignal): Promise<void> {
    const partitions = this.#events.partitions();
    const unchecked = partitions.filter((partition) => !partition.inbox.isOfLog && !this.#checking.has(partition));
    const uncounted = partitions.filter(({ inbox }) => !inbox.isCounted);
    for (const partition of uncounted) await this.#count(partition);
    if (unchecked.length > 0) await this.#checkAll(unchecked, stopped);
    if (unchecked.length + uncounted.length > 0) this.#events.ready();
    await this.#trimAll();
  }

  /** Handlers do not wait for ever for a log that does not answer. */
  async #checkAll(partitions: readonly AssignedPartition[], stopped: AbortSignal): Promise<void> {
    const answered = new AbortController();
    const checks = Promise.all(partitions.map((partition) => this.#check(partition))).then(() => answered.abort());
    await Promise.race([checks, pause(ANSWER_WITHIN_MS, AbortSignal.any([answered.signal, stopped]))]);
    for (const { inbox } of partitions) inbox.isReadable = true;
  }

  /** No more often than places are stored. */
  async #trimAll(): Promise<void> {
    if (performance.now() < this.#trimDueAt) return;
    const untrimmed = this.#events.partitions().filter(({ inbox }) => inbox.isUntrimmed);
    for (const partition of untrimmed) await this.#trim(partition);
    if (untrimmed.length > 0) this.#trimDueAt = performance.now() + this.#settings.cursorIntervalMs;
  }

  async #count(partition: AssignedPartition): Promise<void> {
    const amount = await this.#transactions.ask(partition, (client) => this.#table.amount(client, partition));
    if (amount === undefined) this.#events.lost(partition);
    else partition.inbox.reset(amount.to, amount.records, amount.bytes);
  }

  async #trim(partition: AssignedPartition): Promise<void> {
    const place = await this.#transactions.ask(partition, (client) => this.#table.trim(client, partition));
    if (place === undefined) this.#events.lost(partition);
    else partition.inbox.trimmedTo = place;
  }

  /** Never throws: a log that does not answer is asked again. */
  async #check(partition: AssignedPartition): Promise<void> {
    this.#checking.add(partition);
    try {
      const fork = await this.#forkOf(partition);
      if (fork === undefined) {
        partition.inbox.isOfLog = true;
        this.#events.ready();
      } else await this.#cut(partition, fork);
    } catch (error) {
      this.#reportUnchecked(partition, error);
    } finally {
      this.#checking.delete(partition);
    }
  }

  async #forkOf(partition: AssignedPartition): Promise<bigint | undefined> {
    const { log } = this.#settings;
    const { topic, partition: number, inbox } = partition;
    const { to } = inbox;
    const fork = await forkOf(log, {
      ...{ topic, partition: number, to },
      last: (below) => this.#transactions.ask(partition, (client) => this.#table.lastId(client, partition, below)),
      from: (offset, limit) =>
        this.#transactions.ask(partition, (client) => this.#table.ids(client, partition, offset, limit)),
    });
    if (log.cluster !== partition.origin.log) throw elsewhere();
    return fork;
  }

  /** What is stored beyond is of messages that the log does not know any more, and gives their offsets to others. */
  async #cut(partition: AssignedPartition, fork: bigint): Promise<void> {
    const { group, memberId, logger } = this.#settings;
    const { topic, partition: number, inbox, nextOffset } = partition;
    const removed = await inGroup(this.#settings, async (locked) => {
      await locked.awaitCommits(topic, [partition]);
      return this.#table.cut(locked.client, partition, inbox.to, fork);
    });
    const place = { topic, partition: number, fork: `${fork}`, storedTo: `${inbox.to}`, nextOffset: `${nextOffset}` };
    logger.error(
      { group, memberId, ...place, removed },
      'The log has lost records that were stored and not handled: they are removed from the inbox, since their offsets are given out again',
    );
    this.#events.lost(partition);
  }

  #report(error: unknown, failures: number): void {
    this.#problem = messageOf(error);
    const { group, memberId, logger } = this.#settings;
    logger.warn({ group, memberId, error: this.#problem, failures }, 'Could not look after the inbox; trying again');
  }

  #reportUnchecked({ topic, partition }: AssignedPartition, error: unknown): void {
    const { group, memberId, logger } = this.#settings;
    logger.warn(
      { group, memberId, topic, partition, error: messageOf(error) },
      'What is stored could not be compared with the log; handlers go on with it, and it is tried again',
    );
  }
}
