import { backoffMs } from '../../base/backoff.ts';
import { messageOf, TailraceError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { pause } from '../../base/signal.ts';
import { sqlStateOf } from '../../postgres/sqlstate.ts';
import type { Append, LogBatch, LogWriter } from '../log.ts';
import type { AppendStatement, PartitionIdsToAppend } from './append-statement.ts';
import type { AskedOfHolder, LeaseTable } from './lease.ts';
import { takenOver, type LeaseKeeper } from './lease-keeper.ts';
import { PostgresRelayRequests } from './requests.ts';
import { mayRepeat, retrying } from './retry.ts';
import type { Session } from './session.ts';
import { unknownTopic, type PartitionIds, type Topics } from './topics.ts';
import type { LogEnd, WriterTables } from './writer-tables.ts';

/** What a writer is made of. */
export interface WriterParts {
  readonly epoch: string;
  readonly quotedSchema: string;
  readonly table: LeaseTable;
  /** What was asked when the lease was taken. */
  readonly asked: AskedOfHolder;
  readonly keeper: LeaseKeeper;
  readonly session: Session;
  readonly tables: WriterTables;
  readonly statement: AppendStatement;
  readonly topics: Topics;
  /** How many partitions a new topic gets; `undefined` to create none. */
  readonly partitionsOfNewTopics: number | undefined;
  /** What former holders left behind. */
  readonly end: LogEnd;
  /** Called with the numbers of the partitions that grew. */
  readonly onAppended: (partitions: readonly number[]) => void;
  /** Gives the lease up. */
  readonly onReleased: () => Promise<void>;
  readonly logger: Logger;
}

/** What became of one attempt. `unknown`: the connection was lost, or the attempt failed and may be made again. */
type Outcome =
  { readonly kind: 'appended' } | { readonly kind: 'refused' } | { readonly kind: 'unknown'; readonly error: unknown };

const RETRY = { initialMs: 20, maxMs: 2_000 };

/** The writer of a home log. Keeps the next offsets and the number of the next batch in memory; the statement checks both. */
export class PostgresLogWriter implements LogWriter {
  readonly requests: PostgresRelayRequests;
  readonly #parts: WriterParts;
  readonly #nextOffsets = new Map<number, number>();
  #seq: number;
  /** Of what is remembered of topics. */
  #layout: string;
  #progress: string | undefined;
  #checkpointSeq: number;
  #checkpoint: string | undefined;
  #appending: Promise<void> | undefined;
  #released: Promise<void> | undefined;

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#seq = parts.end.seq;
    this.#layout = parts.asked.layout;
    this.#progress = parts.end.progress;
    this.#checkpointSeq = parts.end.checkpointSeq;
    this.#checkpoint = parts.end.checkpoint;
    this.requests = new PostgresRelayRequests(
      {
        ...parts,
        retrying: (work) => this.#retrying(work),
        checkpointSeq: () => this.#checkpointSeq,
      },
      parts.asked,
    );
  }

  get progress(): string | undefined {
    return this.#progress;
  }

  get checkpoint(): string | undefined {
    return this.#checkpoint;
  }

  get signal(): AbortSignal {
    return this.#parts.keeper.signal;
  }

  partitionCount(topic: string): number | Promise<number> {
    return this.#parts.topics.known(topic)?.length ?? this.#findOrCreate(topic).then((ids) => ids.length);
  }

  partitionCounts(topic: string): readonly number[] | Promise<readonly number[]> {
    const { topics } = this.#parts;
    return topics.countsOf(topic) ?? this.#findOrCreate(topic).then((ids) => topics.countsOf(topic) ?? [ids.length]);
  }

  async append(batch: LogBatch): Promise<void> {
    this.#assertHeld();
    if (this.#appending !== undefined) {
      throw new TailraceError(
        'CONCURRENT_APPEND',
        'An append was called while another was under way. Await one before the next: the order of two would be open.',
      );
    }
    try {
      this.#appending = this.#append(batch);
      await this.#appending;
    } finally {
      this.#appending = undefined;
    }
  }

  async appendedSinceCheckpoint(): Promise<Float64Array> {
    return this.#retrying(() => this.#parts.tables.idsAfter(this.#checkpointSeq));
  }

  async release(): Promise<void> {
    this.#released ??= this.#release();
    await this.#released;
  }

  async #release(): Promise<void> {
    await this.#parts.keeper.stop();
    await this.#parts.onReleased();
    await this.#appending?.catch(() => undefined); // its caller gets the error
    await this.#parts.session.close();
  }

  async #append(batch: LogBatch): Promise<void> {
    const parts = await this.#partsOf(batch.appends);
    for (let attempt = 1; ; attempt++) {
      await this.#loadOffsets(parts);
      const outcome = await this.#attempt(parts, batch);
      if (outcome.kind === 'appended' || (await this.#settle(outcome, attempt))) break;
    }
    this.#advance(parts, batch);
  }

  async #attempt(parts: readonly PartitionIdsToAppend[], batch: LogBatch): Promise<Outcome> {
    const { session, statement, epoch } = this.#parts;
    const { progress, checkpoint, unroutable = [], retried = [] } = batch;
    const bases = parts.map(({ partition }) => this.#nextOffsets.get(partition) ?? 0);
    const append = statement.of({
      epoch,
      seq: this.#seq + 1,
      layout: this.#layout,
      parts,
      bases,
      progress,
      checkpoint,
      unroutable,
      retried,
    });
    try {
      const rows = await session.ask(append);
      return { kind: rows.length === 1 ? 'appended' : 'refused' };
    } catch (error) {
      if (sqlStateOf(error) === UNIQUE_VIOLATION) return { kind: 'refused' };
      if (mayRepeat(error)) return { kind: 'unknown', error };
      throw error;
    }
  }

  /**
   * Finds out whether an attempt that was not answered with success is in the log all the same. The row of its batch
   * says so: no other batch of this epoch can have its number, since this writer goes on to the next number only from here.
   *
   * @returns true if it is in the log; false if the attempt may be made again.
   * @throws TailraceError the reason of {@link signal} if it may not; `PARTITIONS_CHANGED`.
   */
  async #settle(outcome: Exclude<Outcome, { kind: 'appended' }>, attempt: number): Promise<boolean> {
    if (outcome.kind === 'unknown' || attempt > 1) await this.#pauseAfter(outcome, attempt);
    const standing = await this.#retrying(() => this.#parts.tables.standing(this.#parts.session, this.#seq + 1));
    if (standing.batchEpoch === this.#parts.epoch) return true;
    if (standing.leaseEpoch !== this.#parts.epoch) this.#parts.keeper.lose(takenOver());
    this.#assertHeld();
    if (standing.layout !== undefined && standing.layout !== this.#layout) this.#routeAnew(standing.layout);
    if (outcome.kind === 'refused') await this.#reload();
    return false;
  }

  /** A topic has got more partitions: what is remembered of topics is of before. */
  #routeAnew(layout: string): never {
    this.#parts.topics.forget();
    this.#layout = layout;
    throw new TailraceError(
      'PARTITIONS_CHANGED',
      'A topic was given more partitions after the messages had been routed. Nothing was appended: route them again.',
      { retryable: true },
    );
  }

  async #pauseAfter(outcome: Outcome, attempt: number): Promise<void> {
    const waitMs = backoffMs(attempt, RETRY);
    const found = outcome.kind === 'unknown' ? messageOf(outcome.error) : 'offsets or batch number were not the next';
    this.#parts.logger.warn({ attempt, error: found, waitMs }, 'an append did not succeed; trying again');
    await pause(waitMs, this.signal);
  }

  /** Somebody changed the log by hand under this epoch: goes on from what is there. */
  async #reload(): Promise<void> {
    this.#nextOffsets.clear();
    const end = await this.#retrying(() => this.#parts.tables.readEnd(this.#parts.session));
    this.#seq = end.seq;
  }

  async #loadOffsets(parts: readonly PartitionIdsToAppend[]): Promise<void> {
    const missing = parts.map(({ partition }) => partition).filter((partition) => !this.#nextOffsets.has(partition));
    if (missing.length === 0) return;
    const ends = await this.#retrying(() => this.#parts.tables.endsOf(this.#parts.session, missing));
    for (const [partition, end] of ends) this.#nextOffsets.set(partition, end);
  }

  #advance(parts: readonly PartitionIdsToAppend[], { progress, checkpoint }: LogBatch): void {
    this.#seq += 1;
    this.#progress = progress;
    for (const { partition, ids } of parts) {
      this.#nextOffsets.set(partition, (this.#nextOffsets.get(partition) ?? 0) + ids.length);
    }
    if (checkpoint !== undefined) {
      this.#checkpointSeq = this.#seq;
      this.#checkpoint = checkpoint;
      this.#parts.tables.pruneNowAndThen(this.#checkpointSeq);
    }
    if (parts.length > 0) this.#parts.onAppended(parts.map(({ partition }) => partition));
  }

  /** Joins what goes to the same partition, in order. */
  async #partsOf(appends: readonly Append[]): Promise<PartitionIdsToAppend[]> {
    const idsByPartition = new Map<number, readonly number[]>();
    for (const { topic, partition, ids } of appends) {
      if (ids.length === 0) continue;
      const number = this.#parts.topics.known(topic)?.[partition] ?? (await this.#find(topic, partition));
      const earlier = idsByPartition.get(number);
      idsByPartition.set(number, earlier === undefined ? ids : [...earlier, ...ids]);
    }
    return [...idsByPartition].map(([partition, ids]) => ({ partition, ids }));
  }

  #find(topic: string, partition: number): Promise<number> {
    return this.#retrying(() => this.#parts.topics.idOf(topic, partition));
  }

  async #findOrCreate(topic: string): Promise<PartitionIds> {
    const { topics, partitionsOfNewTopics } = this.#parts;
    return this.#retrying(async () => {
      const found = await topics.find(topic);
      if (found !== undefined) return found;
      if (partitionsOfNewTopics === undefined) throw unknownTopic(topic);
      return topics.ensure(topic, partitionsOfNewTopics);
    });
  }

  /** Goes on while the lease holds; what began before its end gets one answer. */
  #retrying<Result>(work: () => Promise<Result>): Promise<Result> {
    return retrying(work, {
      signal: this.signal,
      logger: this.#parts.logger,
      assertMayGoOn: () => this.#assertHeld(),
      failure: 'a request of the writer failed',
      backoff: RETRY,
    });
  }

  #assertHeld(): void {
    if (this.signal.aborted) throw this.signal.reason as TailraceError;
  }
}

const UNIQUE_VIOLATION = '23505';
