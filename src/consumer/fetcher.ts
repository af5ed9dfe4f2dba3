import { backoffMs } from '../base/backoff.ts';
import { isTailraceError, messageOf } from '../base/errors.ts';
import { Signal, pause } from '../base/signal.ts';
import type { LogRecord } from '../broker/record.ts';
import { isTransient } from '../postgres/sqlstate.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import type { ConsumerSettings } from './options.ts';
import { Halts } from './halts.ts';
import { elsewhere } from './origin.ts';
import { hasRoom, planFetch, type FetchPlan, type FetchPlanner } from './prefetch.ts';
import { partitionName } from './sync-plan.ts';

type FetcherSettings = Pick<ConsumerSettings, 'log' | 'group' | 'memberId' | 'prefetch' | 'onOutOfRange' | 'logger'>;

/** Fetches all partitions of this member together, never more than there is room for. */
export class Fetcher<Partition extends AssignedPartition = AssignedPartition> {
  readonly #settings: FetcherSettings;
  readonly #partitions: () => readonly Partition[];
  readonly #accept: (partition: Partition, records: readonly LogRecord[]) => void;
  readonly #stopped = new AbortController();
  readonly #changed = new Signal();
  #loop: Promise<void> = Promise.resolve();
  readonly #plan: FetchPlanner<Partition>;
  #count = 0;
  #asked: ReadonlySet<Partition> = new Set();
  #fetch = new AbortController();
  readonly #halts = new Halts<Partition>(() => this.reassigned());
  #problem: string | undefined;
  #lost = 0;

  /** `partitions` says which can be fetched now; `accept` gets records of one partition, in order; `plan` decides how much to fetch. */
  constructor(
    settings: FetcherSettings,
    partitions: () => readonly Partition[],
    accept: (partition: Partition, records: readonly LogRecord[]) => void,
    plan: FetchPlanner<Partition> = planFetch,
  ) {
    this.#plan = plan;
    this.#settings = settings;
    this.#partitions = partitions;
    this.#accept = accept;
  }

  /** What keeps records from being fetched, while something does. */
  get problem(): string | undefined {
    return this.#problem ?? (this.#halts.error === undefined ? undefined : messageOf(this.#halts.error));
  }

  /** Offsets that were passed over, since retention had removed what was there. */
  get lost(): number {
    return this.#lost;
  }

  start(): void {
    this.#loop = this.#run(this.#stopped.signal);
  }

  /** There are other partitions to fetch than before. */
  reassigned(): void {
    this.#fetch.abort();
    this.#changed.notify();
  }

  /** A partition may have room again. */
  freed(partition: Partition): void {
    if (this.#asked.has(partition) || partition.state !== 'owned') return;
    if (hasRoom(partition, this.#settings.prefetch, this.#count)) this.reassigned();
  }

  /** There may be room for what could not be fetched. */
  resume(): void {
    if (this.#asked.size === 0) this.#changed.notify();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#fetch.abort();
    await this.#loop;
    this.#halts.retain([]);
  }

  async #run(stopped: AbortSignal): Promise<void> {
    let failures = 0;
    for (let turn = 0; !stopped.aborted; turn += 1) {
      try {
        await this.#step(turn, stopped);
        failures = 0;
        this.#problem = undefined;
      } catch (error) {
        failures += 1;
        this.#report(error, failures);
        await pause(backoffMs(failures), stopped);
      }
    }
  }

  async #step(turn: number, stopped: AbortSignal): Promise<void> {
    this.#fetch = new AbortController();
    const assigned = this.#partitions();
    this.#halts.retain(assigned);
    const partitions = assigned.filter((partition) => !this.#halts.holds(partition));
    this.#count = partitions.length;
    const plan = this.#plan(partitions, this.#settings.prefetch, turn);
    this.#asked = new Set(plan?.partitions);
    if (plan === undefined) {
      await this.#changed.wait(Number.POSITIVE_INFINITY, stopped);
      return;
    }
    this.#assertSameLog(plan);
    const records = await this.#fetchPlan(plan);
    this.#assertSameLog(plan);
    if (!stopped.aborted) this.#deliver(plan, records);
  }

  /** Offsets mean something only in the log in which they were given. */
  #assertSameLog({ partitions }: FetchPlan<Partition>): void {
    const { cluster } = this.#settings.log;
    if (partitions.some((partition) => partition.state === 'owned' && partition.origin.log !== cluster))
      throw elsewhere();
  }

  async #fetchPlan(plan: FetchPlan<Partition>): Promise<LogRecord[]> {
    try {
      const records = await this.#fetchOf(plan, plan.partitions, plan.maxWaitMs);
      for (const partition of plan.partitions) this.#halts.clear(partition);
      return records;
    } catch (error) {
      if (isTransient(error)) throw error;
      return this.#fetchEach(plan);
    }
  }

  /** Finds out which partitions the log cannot give, so that the others need not wait for them. */
  async #fetchEach(plan: FetchPlan<Partition>): Promise<LogRecord[]> {
    const found: LogRecord[] = [];
    for (const partition of plan.partitions) {
      try {
        found.push(...(await this.#fetchOf(plan, [partition], 0)));
        this.#halts.clear(partition);
      } catch (error) {
        if (isTransient(error)) throw error;
        if (isTailraceError(error, 'OFFSET_OUT_OF_RANGE') && (await this.#hasJumped(partition))) continue;
        this.#reportHalt(partition, error, this.#halts.halt(partition, error));
      }
    }
    return found;
  }

  /** Goes on behind what retention has removed, if the options say so. A place beyond the end is another matter: it halts. */
  async #hasJumped(partition: Partition): Promise<boolean> {
    const { log, group, memberId, onOutOfRange, logger } = this.#settings;
    const { topic, fetchPosition } = partition;
    if (onOutOfRange === 'stop') return false;
    const ends = (await log.ends(topic)).find((one) => one.partition === partition.partition);
    if (ends === undefined || fetchPosition.offset >= ends.start) return false;
    partition.skipTo(onOutOfRange === 'earliest' ? ends.start : ends.end);
    const to = partition.fetchPosition.offset; // of a range, its end at the most
    const lost = Number(to - fetchPosition.offset);
    this.#lost += lost;
    const place = { topic, partition: partition.partition, from: `${fetchPosition.offset}`, to: `${to}` };
    logger.error(
      { group, memberId, ...place, lost, onOutOfRange },
      'Retention has removed records that this group has not read: it goes on without them',
    );
    return true;
  }

  #fetchOf(
    { maxRecords, maxBytes }: FetchPlan<Partition>,
    partitions: readonly Partition[],
    maxWaitMs: number,
  ): Promise<LogRecord[]> {
    return this.#settings.log.fetch(
      partitions.map((partition) => partition.fetchPosition),
      { maxRecords, maxBytes, maxWaitMs, signal: this.#fetch.signal },
    );
  }

  #deliver(plan: FetchPlan<Partition>, records: readonly LogRecord[]): void {
    const byName = new Map(plan.partitions.map((partition) => [partitionName(partition), partition]));
    for (const [name, ofPartition] of Map.groupBy(records, partitionName)) {
      const partition = byName.get(name);
      if (partition?.state === 'owned') this.#accept(partition, ofPartition);
    }
  }

  #report(error: unknown, failures: number): void {
    this.#problem = messageOf(error);
    const { group, memberId, logger } = this.#settings;
    logger.warn({ group, memberId, error: this.#problem, failures }, 'Could not fetch from the log; trying again');
  }

  #reportHalt({ topic, partition, fetchPosition }: Partition, error: unknown, failures: number): void {
    const { group, memberId, logger } = this.#settings;
    const offset = fetchPosition.offset.toString();
    logger.error(
      { group, memberId, topic, partition, offset, error: messageOf(error), failures },
      'A partition stands still: the log cannot give its next records, and waiting will hardly help; trying again',
    );
  }
}
