import { backoffMs } from '../base/backoff.ts';
import { isTailraceError, messageOf } from '../base/errors.ts';
import { Signal, pause } from '../base/signal.ts';
import type { LogRecord } from '../broker/record.ts';
import { isTransient } from '../postgres/sqlstate.ts';
import type { ConsumerSettings } from './options.ts';
import { Halts } from './halts.ts';
import { elsewhere, type Origin } from './origin.ts';
import {
  hasRoom,
  planFetch,
  type FetchPlan,
  type FetchPlanner,
  type PrefetchLimits,
  type PrefetchPartition,
} from './prefetch.ts';
import { partitionName } from './sync-plan.ts';

type FetcherSettings = Pick<ConsumerSettings, 'log' | 'group' | 'memberId' | 'prefetch' | 'onOutOfRange' | 'logger'>;

/** A partition as it is fetched. */
export interface FetchedPartition extends PrefetchPartition {
  readonly topic: string;
  readonly partition: number;
  readonly origin: Origin;
  /** Only what is `owned` is fetched. */
  readonly state: string;
  /** Goes on at an offset further on. */
  skipTo(offset: bigint): void;
}

/** The bounds of one fetch, all partitions together. */
export interface FetchLimits {
  readonly maxRecords: number;
  readonly maxRecordsEach: number;
  readonly maxBytes: number;
  readonly maxWaitMs: number;
  readonly signal: AbortSignal;
}

/** What is fetched, from where, and for whom. */
export interface FetchWork<P extends FetchedPartition> {
  /** Completes "Could not …", for operators. */
  readonly aim: string;
  /** Those that can be fetched now. */
  partitions(): readonly P[];
  /** Records of the partitions, in order within each. */
  fetch(partitions: readonly P[], limits: FetchLimits): Promise<LogRecord[]>;
  /** Gets records of one partition, in order. What it throws is as if the fetch had failed. */
  accept(partition: P, records: readonly LogRecord[]): void | Promise<void>;
  /** How much one fetch may bring, however much there is room for. */
  readonly most?: PrefetchLimits;
  /** A partition cannot be given. */
  halted?(partition: P): void;
  /** Decides how much to fetch of which. @defaultValue {@link planFetch} */
  readonly plan?: FetchPlanner<P>;
}

/** Given as the reason, since an error would be made of none, with its stack, each time. */
const ELSE_TO_FETCH = 'there is something else to fetch';

/** Fetches all partitions of this member together, never more than there is room for. */
export class Fetcher<P extends FetchedPartition> {
  readonly #settings: FetcherSettings;
  readonly #work: FetchWork<P>;
  readonly #stopped = new AbortController();
  readonly #changed = new Signal();
  #loop: Promise<void> = Promise.resolve();
  readonly #plan: FetchPlanner<P>;
  #count = 0;
  #asked: ReadonlySet<P> = new Set();
  #fetch = new AbortController();
  readonly #halts = new Halts<P>(() => this.reassigned());
  #problem: string | undefined;
  #lost = 0;

  constructor(settings: FetcherSettings, work: FetchWork<P>) {
    this.#plan = work.plan ?? planFetch;
    this.#settings = settings;
    this.#work = work;
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
    this.#fetch.abort(ELSE_TO_FETCH);
    this.#changed.notify();
  }

  /** A partition may have room again. */
  freed(partition: P): void {
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
    const assigned = this.#work.partitions();
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
    if (!stopped.aborted) await this.#deliver(plan, records);
  }

  /** Offsets mean something only in the log in which they were given. */
  #assertSameLog({ partitions }: FetchPlan<P>): void {
    const { cluster } = this.#settings.log;
    if (partitions.some((partition) => partition.state === 'owned' && partition.origin.log !== cluster))
      throw elsewhere();
  }

  async #fetchPlan(plan: FetchPlan<P>): Promise<LogRecord[]> {
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
  async #fetchEach(plan: FetchPlan<P>): Promise<LogRecord[]> {
    const found: LogRecord[] = [];
    for (const partition of plan.partitions) {
      try {
        found.push(...(await this.#fetchOf(plan, [partition], 0)));
        this.#halts.clear(partition);
      } catch (error) {
        if (isTransient(error)) throw error;
        if (isTailraceError(error, 'OFFSET_OUT_OF_RANGE') && (await this.#hasJumped(partition))) continue;
        this.#reportHalt(partition, error, this.#halts.halt(partition, error));
        this.#work.halted?.(partition);
      }
    }
    return found;
  }

  /** Goes on behind what retention has removed, if the options say so. A place beyond the end is another matter: it halts. */
  async #hasJumped(partition: P): Promise<boolean> {
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

  #fetchOf(plan: FetchPlan<P>, partitions: readonly P[], maxWaitMs: number): Promise<LogRecord[]> {
    const { maxRecords, maxRecordsEach, maxBytes } = plan;
    const { most = { records: maxRecords, bytes: maxBytes } } = this.#work;
    return this.#work.fetch(partitions, {
      maxRecords: Math.min(maxRecords, most.records),
      maxRecordsEach,
      maxBytes: Math.min(maxBytes, most.bytes),
      maxWaitMs,
      signal: this.#fetch.signal,
    });
  }

  async #deliver(plan: FetchPlan<P>, records: readonly LogRecord[]): Promise<void> {
    const byName = new Map(plan.partitions.map((partition) => [partitionName(partition), partition]));
    for (const [name, ofPartition] of Map.groupBy(records, partitionName)) {
      const partition = byName.get(name);
      if (partition?.state === 'owned') await this.#work.accept(partition, ofPartition);
    }
  }

  #report(error: unknown, failures: number): void {
    this.#problem = messageOf(error);
    const { group, memberId, logger } = this.#settings;
    logger.warn({ group, memberId, error: this.#problem, failures }, `Could not ${this.#work.aim}; trying again`);
  }

  #reportHalt({ topic, partition, fetchPosition }: P, error: unknown, failures: number): void {
    const { group, memberId, logger } = this.#settings;
    const offset = fetchPosition.offset.toString();
    logger.error(
      { group, memberId, topic, partition, offset, error: messageOf(error), failures },
      'A partition stands still: the log cannot give its next records, and waiting will hardly help; trying again',
    );
  }
}
