import { backoffMs } from '../base/backoff.ts';
import { isTailraceError, messageOf } from '../base/errors.ts';
import { Signal, pause } from '../base/signal.ts';
import type { LogRecord } from '../broker/record.ts';
import { isTransient } from '../postgres/sqlstate.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import type { ConsumerSettings } from './options.ts';
import { Halts } from './halts.ts';
import { elsewhere } from './origin.ts';
import { hasRoom, planFetch, type FetchPlan } from './prefetch.ts';
import { partitionName } from './sync-plan.ts';

/** How long a fetch with nothing to bring may wait. It ends at once when there is something else to fetch. */
const LONGEST_WAIT_MS = 5_000;

type FetcherSettings = Pick<ConsumerSettings, 'log' | 'group' | 'memberId' | 'prefetch' | 'onOutOfRange' | 'logger'>;

/** Fetches all partitions of this member together, never more than there is room for. */
export class Fetcher {
  readonly #settings: FetcherSettings;
  readonly #partitions: () => readonly AssignedPartition[];
  readonly #accept: (partition: AssignedPartition, records: readonly LogRecord[]) => void;
  readonly #stopped = new AbortController();
  readonly #changed = new Signal();
  #loop: Promise<void> = Promise.resolve();
  #count = 0;
  #asked: ReadonlySet<AssignedPartition> = new Set();
  #fetch = new AbortController();
  readonly #halts = new Halts<AssignedPartition>(() => this.reassigned());
  #problem: string | undefined;
  #lost = 0;

  /** `partitions` says which can be fetched now; `accept` gets records of one partition, in order. */
  constructor(
    settings: FetcherSettings,
    partitions: () => readonly AssignedPartition[],
    accept: (partition: AssignedPartition, records: readonly LogRecord[]) => void,
  ) {
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
  freed(partition: AssignedPartition): void {
    if (this.#asked.has(partition) || partition.state !== 'owned') return;
    if (hasRoom(partition, this.#settings.prefetch, this.#count)) this.reassigned();
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
    const plan = planFetch(partitions, this.#settings.prefetch, turn);
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
  #assertSameLog({ partitions }: FetchPlan<AssignedPartition>): void {
    const { cluster } = this.#settings.log;
    if (partitions.some((partition) => partition.state === 'owned' && partition.origin.log !== cluster))
      throw elsewhere();
  }

  async #fetchPlan(plan: FetchPlan<AssignedPartition>): Promise<LogRecord[]> {
    try {
      const records = await this.#fetchOf(plan, plan.partitions, LONGEST_WAIT_MS);
      for (const partition of plan.partitions) this.#halts.clear(partition);
      return records;
    } catch (error) {
      if (isTransient(error)) throw error;
      return this.#fetchEach(plan);
    }
  }

  /** Finds out which partitions the log cannot give, so that the others need not wait for them. */
  async #fetchEach(plan: FetchPlan<AssignedPartition>): Promise<LogRecord[]> {
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
  async #hasJumped(partition: AssignedPartition): Promise<boolean> {
    const { log, group, memberId, onOutOfRange, logger } = this.#settings;
    const { topic, fetchPosition } = partition;
    if (onOutOfRange === 'stop') return false;
    const ends = (await log.ends(topic)).find((one) => one.partition === partition.partition);
    if (ends === undefined || fetchPosition.offset >= ends.start) return false;
    const to = onOutOfRange === 'earliest' ? ends.start : ends.end;
    const lost = Number(to - fetchPosition.offset);
    this.#lost += lost;
    partition.skipTo(to);
    const place = { topic, partition: partition.partition, from: `${fetchPosition.offset}`, to: `${to}` };
    logger.error(
      { group, memberId, ...place, lost, onOutOfRange },
      'Retention has removed records that this group has not read: it goes on without them',
    );
    return true;
  }

  #fetchOf(
    { maxRecords, maxBytes }: FetchPlan<AssignedPartition>,
    partitions: readonly AssignedPartition[],
    maxWaitMs: number,
  ): Promise<LogRecord[]> {
    return this.#settings.log.fetch(
      partitions.map((partition) => partition.fetchPosition),
      { maxRecords, maxBytes, maxWaitMs, signal: this.#fetch.signal },
    );
  }

  #deliver(plan: FetchPlan<AssignedPartition>, records: readonly LogRecord[]): void {
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

  #reportHalt({ topic, partition, fetchPosition }: AssignedPartition, error: unknown, failures: number): void {
    const { group, memberId, logger } = this.#settings;
    const offset = fetchPosition.offset.toString();
    logger.error(
      { group, memberId, topic, partition, offset, error: messageOf(error), failures },
      'A partition stands still: the log cannot give its next records, and waiting will hardly help; trying again',
    );
  }
}
