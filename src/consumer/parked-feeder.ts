import { backoffMs } from '../base/backoff.ts';
import { messageOf } from '../base/errors.ts';
import { Signal } from '../base/signal.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import type { LookTarget } from './delivery.ts';
import type { HandlerTransactions } from './handler-transaction.ts';
import type { ConsumerSettings } from './options.ts';
import type { ParkedMessages } from './parked-messages.ts';
import { partitionName } from './sync-plan.ts';

/** How long what nobody told of stays unnoticed: what operators did while no notification came through. */
export const SAFETY_MS = 5_000;
/** How many rows that block nobody are in hand at once. */
const MOST_ALONE = 1_000;

/** How soon to look again when more is due than that. */
const FULL_MS = 100;

type FeederSettings = Pick<ConsumerSettings, 'group' | 'memberId' | 'logger'>;

/** What the feeder asks and tells. */
export interface FeederEvents {
  /** The partitions that this member owns. */
  partitions(): readonly AssignedPartition[];
  /** It is known which keys of a partition are parked: its records may be begun. */
  loaded(): void;
  look(partition: AssignedPartition, target: LookTarget): void;
}

/**
 * Watches what is parked of this member's partitions: loads the keys of a partition before anything of it is handled, and
 * has what is due looked at. It only ever causes looks, which find out for themselves.
 */
export class ParkedFeeder {
  readonly #settings: FeederSettings;
  readonly #messages: ParkedMessages;
  readonly #transactions: HandlerTransactions;
  readonly #events: FeederEvents;
  readonly #stopped = new AbortController();
  readonly #wake = new Signal();
  #loop: Promise<void> = Promise.resolve();
  /** On the monotonic clock. */
  #nextDueAt = 0;
  #isStale = false;
  #refreshedAt = 0;
  #problem: string | undefined;

  constructor(
    settings: FeederSettings,
    messages: ParkedMessages,
    transactions: HandlerTransactions,
    events: FeederEvents,
  ) {
    this.#settings = settings;
    this.#messages = messages;
    this.#transactions = transactions;
    this.#events = events;
  }

  /** What keeps it from knowing what is parked, while something does. */
  get problem(): string | undefined {
    return this.#problem;
  }

  start(): void {
    this.#loop = this.#run(this.#stopped.signal);
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#loop;
  }

  /** There is a partition whose keys are to be loaded. */
  taken(): void {
    this.#wake.notify();
  }

  /** An operator has changed something. */
  changed(): void {
    this.#isStale = true;
    this.#wake.notify();
  }

  /** Something will be due after this time. */
  expect(afterMs: number): void {
    const dueAt = performance.now() + afterMs;
    if (dueAt >= this.#nextDueAt) return;
    this.#nextDueAt = dueAt;
    this.#wake.notify();
  }

  async #run(stopped: AbortSignal): Promise<void> {
    let failures = 0;
    while (!stopped.aborted) {
      try {
        await this.#step();
        failures = 0;
        this.#problem = undefined;
      } catch (error) {
        failures += 1;
        this.#isStale = true;
        this.#report(error, failures);
      }
      const waitMs = failures > 0 ? backoffMs(failures) : this.#nextDueAt - performance.now();
      await this.#wake.wait(Math.ceil(waitMs), stopped);
    }
  }

  async #step(): Promise<void> {
    const partitions = this.#events.partitions();
    const isRefresh = this.#isStale || performance.now() - this.#refreshedAt >= SAFETY_MS;
    const unloaded = partitions.filter(({ parked }) => !parked.isLoaded);
    const stale = partitions.filter(({ parked }) => parked.isLoaded && (this.#isStale || parked.size > 0));
    this.#isStale = false;
    if (isRefresh) this.#refreshedAt = performance.now();
    await this.#carryOver(unloaded);
    await this.#load(unloaded);
    if (unloaded.length > 0) this.#events.loaded();
    if (isRefresh) await this.#load(stale);
    if (unloaded.length > 0 || isRefresh || performance.now() >= this.#nextDueAt) await this.#lookAtDue(partitions);
  }

  /** What a former generation left: nothing has been read in this one yet. */
  async #carryOver(partitions: readonly AssignedPartition[]): Promise<void> {
    const [first] = partitions;
    if (first === undefined || partitions.every(({ generation }) => generation === 1)) return;
    const outdated = await this.#transactions.ask(first, (client) => this.#messages.outdated(client, partitions));
    for (const index of outdated) {
      const partition = partitions[index];
      if (partition === undefined) continue;
      const ended = await this.#transactions.run(partition, { of: 'nothing' }, (tx) =>
        this.#messages.carryOver(tx, partition, partition.nextOffset),
      );
      if (ended.outcome === 'failed') throw ended.error;
    }
  }

  async #load(partitions: readonly AssignedPartition[]): Promise<void> {
    const [first] = partitions;
    if (first === undefined) return;
    const heads = await this.#transactions.ask(first, (client) => this.#messages.heads(client, partitions));
    partitions.forEach((partition, at) => {
      for (const key of partition.parked.load(heads[at] ?? [])) this.#events.look(partition, { key });
    });
  }

  async #lookAtDue(partitions: readonly AssignedPartition[]): Promise<void> {
    const [first] = partitions;
    this.#nextDueAt = performance.now() + SAFETY_MS;
    if (first === undefined) return;
    const inHand = partitions.reduce((sum, { parked }) => sum + parked.alone, 0);
    const { rows, nextMs } = await this.#transactions.ask(first, (client) =>
      this.#messages.due(client, partitions, MOST_ALONE + inHand),
    );
    for (const { index, offset, key, blocks } of rows) {
      const partition = partitions[index];
      if (partition === undefined) continue;
      if (blocks && key !== null) this.#events.look(partition, { key });
      else if (partition.parked.alone < MOST_ALONE) this.#events.look(partition, { key, offset });
    }
    if (nextMs !== undefined) this.expect(Math.ceil(nextMs));
    if (rows.length > MOST_ALONE) this.expect(FULL_MS);
  }

  #report(error: unknown, failures: number): void {
    this.#problem = messageOf(error);
    const { group, memberId, logger } = this.#settings;
    const partitions = this.#events.partitions().map(partitionName);
    const fields = { group, memberId, partitions, error: this.#problem, failures };
    logger.warn(fields, 'Could not read what is parked; trying again');
  }
}
