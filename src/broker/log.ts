import type { Headers } from '../message/message.ts';
import type { Cluster } from '../base/cluster.ts';
import type { Capable } from './capabilities.ts';
import type { LogRecord, NewRecord } from './record.ts';

/** Where to read next in a partition. */
export interface FetchPosition {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
}

/** Bounds of a {@link Log.fetch}. */
export interface FetchOptions {
  /** Stop after about this many bytes of stored messages, all partitions together; at least one record is returned. @defaultValue 1_000_000 */
  readonly maxBytes?: number;
  /** Return at most this many records, all partitions together. @defaultValue 2_000 */
  readonly maxRecords?: number;
  /** Return at most this many records of each partition. @defaultValue `maxRecords` */
  readonly maxRecordsEach?: number;
  /** With nothing to return, wait this long for something. @defaultValue 0 */
  readonly maxWaitMs?: number;
  /** Ends the wait at once, with what there is. */
  readonly signal?: AbortSignal;
}

/** A partition's first offset, and the offset that its next record will get. */
export interface PartitionEnds {
  readonly partition: number;
  readonly start: bigint;
  readonly end: bigint;
  /**
   * Of a partition that was added to its topic later: where the partitions before the added ones ended at that moment, by
   * partition. Records of a key are in order for a reader that has come there in all of them before it reads this one.
   */
  readonly opensAfter?: readonly bigint[];
}

/**
 * Partitioned topics that can be read from any offset, any number of times. A record, once fetched, is found at its offset
 * with the same bytes by every later fetch until retention removes it.
 */
export interface Log extends Capable {
  /**
   * The cluster and timeline of the server that everything is read from; `undefined` before the first reading, and where a log
   * cannot tell. Once it leads elsewhere, it is another object, and what was asked before fails.
   */
  readonly cluster?: Cluster | undefined;
  /** The number of partitions of a topic, 0 if the topic does not exist. */
  partitionCount(topic: string): Promise<number>;
  /** First and next offsets of every partition of a topic, by partition; empty if the topic does not exist. */
  ends(topic: string): Promise<PartitionEnds[]>;
  /**
   * For every partition of a topic, the offset of its first record appended at `time` or later, else its end. Throws
   * `UNSUPPORTED_CAPABILITY` where the log does not declare `time-seek`.
   */
  offsetsAt(topic: string, time: Date): Promise<FetchPosition[]>;
  /**
   * Records from the given positions on, in offset order within each partition, without a gap unless the topic is compacted.
   * Throws `UNKNOWN_TOPIC`; `OFFSET_OUT_OF_RANGE` below a partition's start and beyond its end; `DANGLING_ENTRY` where the
   * log names a message that is gone.
   */
  fetch(positions: readonly FetchPosition[], options?: FetchOptions): Promise<LogRecord[]>;
  /** Releases connections. May be called more than once. */
  close(): Promise<void>;
}

/** Records for one partition of a {@link TargetLog}, in order. */
export interface RecordsToAppend {
  readonly topic: string;
  readonly partition: number;
  /** What the first of them gets. */
  readonly offset: bigint;
  readonly records: readonly NewRecord[];
  /** No fetch gives them before this time. Needs the capability `server-side-delay`. */
  readonly notBefore?: Date;
}

/** How a topic of a {@link TargetLog} is kept. */
export interface TopicOptions {
  /** Keep the last record of each key only. Needs the capability `compaction`. @defaultValue false */
  readonly compaction?: boolean;
}

/** A log that forwarders feed, each partition by one of them at a time. */
export interface TargetLog extends Log {
  /**
   * Creates a topic. Does nothing if it exists with as many partitions. Throws `INVALID_TOPIC`, `INVALID_OPTION`,
   * `UNSUPPORTED_CAPABILITY`.
   */
  createTopic(topic: string, partitions: number, options?: TopicOptions): Promise<void>;
  /**
   * Appends all the records or none; resolves once they are as durable as the log promises. What an earlier append has put
   * there already, by their message ids, is not appended again: an append whose outcome is unknown is sent again as it was.
   *
   * Throws `APPEND_CONFLICT` if other records stand at these offsets, or the partition ends before them (`details.end`);
   * `UNKNOWN_TOPIC`, `MESSAGE_TOO_LARGE`, `UNSUPPORTED_CAPABILITY`.
   */
  append(append: RecordsToAppend): Promise<void>;
}

/** Messages to append to one partition, in order. */
export interface Append {
  readonly topic: string;
  readonly partition: number;
  /** Outbox positions. */
  readonly ids: readonly number[];
}

/** Messages that cannot be appended, for one reason. */
export interface UnroutableMessages {
  readonly topic: string;
  /** Outbox positions. */
  readonly ids: readonly number[];
  /** Why, as a code. */
  readonly reason: string;
  /** The same in words, for operators. */
  readonly error: string;
}

/** What one append makes durable, all of it or nothing. */
export interface LogBatch {
  readonly appends: readonly Append[];
  /** Messages that become dead letters of the relay. They count as appended in {@link LogWriter.appendedSinceCheckpoint}. */
  readonly unroutable?: readonly UnroutableMessages[];
  /** Outbox positions among the appends that were dead letters, and are none any more. */
  readonly retried?: readonly number[];
  /** The source's position after these messages. Opaque to the log. */
  readonly progress: string;
  /** Where a source that lost its place can start over. Opaque to the log. */
  readonly checkpoint?: string;
}

/** How a relay learns of committed messages: from the write-ahead log, or by asking the outbox table. */
export type RelayMode = 'wal' | 'polling';

/** Dead letters of the relay as columns, as a source gives messages: message n is `ids[n]`, `topics[n]`, `keyHashes[n]`. */
export interface DeadLetters {
  /** Outbox positions, ascending. */
  readonly ids: readonly number[];
  readonly topics: readonly string[];
  /** From `keyHash`; -1 where there is no key. */
  readonly keyHashes: readonly number[];
}

/** What operators ask of the relay that holds the right to append. They ask in the log's own tables, from any machine. */
export interface RelayRequests {
  /** The mode asked for, kept over restarts; `undefined` leaves it to the relay. */
  readonly mode: RelayMode | undefined;
  /** Whether dead letters wait to be retried or discarded, when that was last looked up. */
  readonly hasDeadLetters: boolean;
  /** Tells operators how the relay reads now. */
  report(status: { readonly mode: RelayMode; readonly reason?: string }): Promise<void>;
  /** The first dead letters that are to be routed again, at most 1,000. */
  deadLettersToRetry(): Promise<DeadLetters>;
  /** Removes dead letters that are to be discarded and that a checkpoint covers, at most 1,000; answers their positions. */
  discardDeadLetters(): Promise<readonly number[]>;
}

/** The right to append, held by one relay at a time. */
export interface LogWriter {
  /** What the last append left behind, of this or any former holder; `undefined` in a log that was never appended to. */
  readonly progress: string | undefined;
  readonly checkpoint: string | undefined;
  readonly requests: RelayRequests;
  /** Fires when the right is lost or given up. */
  readonly signal: AbortSignal;
  /**
   * Partitions of a topic, which is created if it does not exist and the log allows it. Throws `UNKNOWN_TOPIC`, and
   * `INVALID_TOPIC` for what is no name of a topic.
   */
  partitionCount(topic: string): number | Promise<number>;
  /**
   * The same, with the numbers of partitions that the topic had before, in ascending order: keys are placed by
   * `partitionAmong` them.
   */
  partitionCounts(topic: string): readonly number[] | Promise<readonly number[]>;
  /**
   * Appends in one durable transaction. One append at a time. Retries what can pass by itself. Throws `LEASE_LOST` once
   * another holder has taken over, and `PARTITIONS_CHANGED` if a topic has got more partitions since this writer last heard of
   * its number: then the batch is to be routed again. In both cases nothing of it is in the log.
   */
  append(batch: LogBatch): Promise<void>;
  /** Outbox positions of everything appended or set aside after the last stored checkpoint, sorted. */
  appendedSinceCheckpoint(): Promise<Float64Array>;
  /** Gives the right up at once. */
  release(): Promise<void>;
}

/** How a relay comes by the right to append. */
export interface WriterOptions {
  /** Names this process to operators. */
  readonly holder: string;
  /** How long the right outlives a holder that says nothing. */
  readonly leaseMs: number;
  /** Ends the wait for the right. */
  readonly signal: AbortSignal;
  /** Called when another relay holds the right and the wait begins, also anew after {@link WriterOptions.onRetry}. */
  readonly onWaiting?: () => void;
  /** Called with what an attempt to get the right failed with, when it can pass and another attempt follows. */
  readonly onRetry?: (error: unknown) => void;
  /** Called while the right is held when {@link LogWriter.requests} has something to do: soon after it was asked for. */
  readonly onAsked?: () => void;
}

/** What the outbox says of a message beside its payload. */
export interface OutboxHeaders {
  /** Its position in the outbox. */
  readonly id: number;
  readonly messageId: string;
  readonly headers: Headers;
}

/** The log in the outbox's own database: the one target of the relay. */
export interface HomeLog extends Log {
  /** The headers of messages by their outbox positions, in any order. What cannot be seen yet is left out. */
  headersOf(ids: readonly number[]): Promise<OutboxHeaders[]>;
  /** Waits until no other relay holds the right to append, then takes it. Throws `STOPPED` if the signal fires first. */
  acquireWriter(options: WriterOptions): Promise<LogWriter>;
}
