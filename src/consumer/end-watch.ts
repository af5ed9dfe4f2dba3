import { backoffMs } from '../base/backoff.ts';
import { messageOf } from '../base/errors.ts';
import { Signal, pause } from '../base/signal.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import type { ConsumerSettings } from './options.ts';
import { elsewhere } from './origin.ts';
import { partitionName } from './sync-plan.ts';

/** How long to wait for records at once. It ends when there are other partitions to watch. */
const LONGEST_WAIT_MS = 5_000;
const ONE_RECORD = { maxRecords: 1, maxBytes: 1_000_000 };

/** What a watch asks and tells. */
export interface EndWatchEvents {
  /** The partitions whose ends are to be known. */
  partitions(): readonly AssignedPartition[];
  /** A partition ends further on than was known. It is looked at again after {@link EndWatch.changed}. */
  learned(): void;
}

/**
 * Knows where the partitions end that this member owns of a work queue, so that one member of the group waits for records
 * of a partition, and not all of them.
 */
export class EndWatch {
  readonly #settings: Pick<ConsumerSettings, 'log' | 'group' | 'memberId' | 'logger'>;
  readonly #events: EndWatchEvents;
  readonly #stopped = new AbortController();
  readonly #changed = new Signal();
  #ends = new Map<AssignedPartition, bigint>();
  #fetch = new AbortController();
  #asked: readonly AssignedPartition[] = [];
  #loop: Promise<void> = Promise.resolve();
  #problem: string | undefined;

  constructor(settings: Pick<ConsumerSettings, 'log' | 'group' | 'memberId' | 'logger'>, events: EndWatchEvents) {
    this.#settings = settings;
    this.#events = events;
  }

  /** What keeps ends from being known, while something does. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** The ends that are known, by the names of the partitions. */
  get ends(): ReadonlyMap<string, bigint> {
    const owned = [...this.#ends].filter(([{ state }]) => state === 'owned');
    return new Map(owned.map(([partition, end]) => [partitionName(partition), end]));
  }

  start(): void {
    this.#loop = this.#run(this.#stopped.signal);
  }

  /** There may be other partitions to watch, or what was learned has been told to the group. */
  changed(): void {
    this.#changed.notify();
    const wanted = this.#events.partitions();
    if (wanted.length !== this.#asked.length || wanted.some((one) => !this.#asked.includes(one))) this.#fetch.abort();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#fetch.abort();
    await this.#loop;
  }

  async #run(stopped: AbortSignal): Promise<void> {
    let failures = 0;
    while (!stopped.aborted) {
      try {
        const learned = await this.#step(stopped);
        failures = 0;
        this.#problem = undefined;
        if (learned) {
          this.#events.learned();
          await this.#changed.wait(LONGEST_WAIT_MS, stopped);
        }
      } catch (error) {
        failures += 1;
        this.#report(error, failures);
        await pause(backoffMs(failures), stopped);
      }
    }
  }

  /** Waits for something new. Answers whether a partition ends further on. */
  async #step(stopped: AbortSignal): Promise<boolean> {
    this.#fetch = new AbortController();
    const partitions = this.#events.partitions();
    this.#asked = partitions;
    this.#ends = new Map([...this.#ends].filter(([partition]) => partition.state === 'owned'));
    if (partitions.length === 0) {
      await this.#changed.wait(Number.POSITIVE_INFINITY, stopped);
      return false;
    }
    const unknown = partitions.filter((partition) => !this.#ends.has(partition));
    if (unknown.length > 0) return this.#ask(unknown);
    this.#assertSameLog(partitions);
    const records = await this.#settings.log.fetch(
      partitions.map((one) => ({ topic: one.topic, partition: one.partition, offset: this.#ends.get(one) ?? 0n })),
      { ...ONE_RECORD, maxWaitMs: LONGEST_WAIT_MS, signal: this.#fetch.signal },
    );
    const topics = new Set(records.map(({ topic }) => topic));
    return topics.size > 0 && this.#ask(partitions.filter(({ topic }) => topics.has(topic)));
  }

  async #ask(partitions: readonly AssignedPartition[]): Promise<boolean> {
    let learned = false;
    for (const [topic, ofTopic] of Map.groupBy(partitions, (one) => one.topic)) {
      const ends = await this.#settings.log.ends(topic);
      this.#assertSameLog(ofTopic);
      for (const partition of ofTopic) {
        const end = ends.find((one) => one.partition === partition.partition)?.end ?? 0n;
        learned ||= end > (this.#ends.get(partition) ?? -1n);
        this.#ends.set(partition, end);
      }
    }
    return learned;
  }

  /** Offsets mean something only in the log in which they were given. */
  #assertSameLog(partitions: readonly AssignedPartition[]): void {
    const { cluster } = this.#settings.log;
    if (partitions.some(({ state, origin }) => state === 'owned' && origin.log !== cluster)) throw elsewhere();
  }

  #report(error: unknown, failures: number): void {
    this.#ends.clear(); // asked for anew: the log may end elsewhere by now
    this.#problem = messageOf(error);
    const { group, memberId, logger } = this.#settings;
    logger.warn(
      { group, memberId, error: this.#problem, failures },
      'Could not watch the ends of partitions; trying again',
    );
  }
}
