import type { RelayMode } from '../broker/log.ts';
import type { WalBudgetUse } from './wal/wal-budget.ts';

/**
 * Committed messages, in commit order, as columns: message n is `ids[n]`, `topics[n]`, `keyHashes[n]`. A batch may be
 * empty: then only its progress and checkpoint are to be made durable.
 */
export interface SourceBatch {
  /** Outbox positions. */
  readonly ids: readonly number[];
  readonly topics: readonly string[];
  /** Java Kafka's murmur2 of the key's bytes, made positive; -1 where there is no key. */
  readonly keyHashes: readonly number[];
  readonly progress: string;
  readonly checkpoint?: string;
}

/** What a former run left behind in the home log, from which a source resumes. */
export interface Resume {
  readonly progress: string | undefined;
  readonly checkpoint: string | undefined;
  /** Outbox positions in the log beyond the checkpoint, sorted. */
  appendedSinceCheckpoint(): Promise<Float64Array>;
}

/** How a source is reading now, and why. */
export interface SourceStatus {
  readonly mode: RelayMode;
  /** Why it does not read as it was asked to. */
  readonly reason?: string;
  /** How much WAL its replication slot holds back, where that has a budget. As of some seconds ago. */
  readonly walBudget?: WalBudgetUse;
}

/** One reading of a source, from a resume point on. */
export interface SourceReader {
  readonly status: SourceStatus;
  /**
   * The next batch. Waits for one. Rejects with what ended the reading, which is the signal's reason once it has fired; a
   * retryable error means that opening again can help.
   * The former batch must be durable before the next is asked for.
   */
  next(signal: AbortSignal): Promise<SourceBatch>;
  /** Says that the batch last returned by `next` is durable. */
  durable(): void;
  /** Releases everything. Acknowledges what is durable first. May be called more than once. */
  close(): Promise<void>;
}

/** Where the relay learns committed messages. */
export interface Source {
  /**
   * Starts to read.
   *
   * @param mode what an operator asked for; `undefined` leaves it to the source. Where the source cannot read like that, it
   * reads as it can, and its status says why.
   */
  open(resume: Resume, signal: AbortSignal, mode?: RelayMode): Promise<SourceReader>;
}
