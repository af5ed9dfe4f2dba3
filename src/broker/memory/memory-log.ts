import { TailraceError } from '../../base/errors.ts';
import { Signal } from '../../base/signal.ts';
import { DEFAULT_MAX_MESSAGE_BYTES, encodeMessage, type EncodedMessage } from '../../message/encode.ts';
import { copyHeaders, decodeHeaders } from '../../message/headers.ts';
import type { Message } from '../../message/message.ts';
import { requireCapability, type LogCapability } from '../capabilities.ts';
import { assertPartitions, assertTime, assertTopicName, fetchBounds, invalid, rotated } from '../checks.ts';
import type { FetchBounds } from '../checks.ts';
import type { FetchOptions, FetchPosition, PartitionEnds, RecordsToAppend, TargetLog, TopicOptions } from '../log.ts';
import { keyHash, partitionOf } from '../partitioner.ts';
import type { LogRecord, NewRecord } from '../record.ts';
import { copyOf, Partition, type Reading, type StoredRecord } from './partition.ts';

/** How a memory log behaves. */
export interface MemoryLogOptions {
  /** How many partitions a topic gets that {@link MemoryLog.publish} creates; 1 to 10,000. @defaultValue 8 */
  readonly partitions?: number;
  /** The largest message that is taken, in bytes: topic, key, type, headers and payload. @defaultValue 1_000_000 */
  readonly maxMessageBytes?: number;
  /**
   * A delete marker of a compacted topic stays for so long after {@link MemoryLog.compact} has removed what it deletes, in
   * milliseconds: who reads the topic from its start learns of the deletion if that takes no longer. 0: until the next
   * compaction. @defaultValue 86_400_000, a day
   */
  readonly deleteRetentionMs?: number;
}

/**
 * A log in the memory of this process, for tests and development. It keeps every promise of a log but one: nothing
 * outlives the process. Nothing leaves it either, but by {@link MemoryLog.removeBefore} and {@link MemoryLog.compact}.
 */
export interface MemoryLog extends TargetLog {
  /**
   * Appends messages in their order, each to the partition of its key; those without a key go to one partition together.
   * Creates topics that do not exist.
   *
   * @throws TailraceError as `encodeMessage`: `INVALID_MESSAGE`, `INVALID_PAYLOAD`, `MESSAGE_TOO_LARGE` and so on.
   */
  publish(messages: Message | readonly Message[]): Promise<void>;
  /** Removes the records of a partition below an offset, as retention does. Throws `UNKNOWN_TOPIC`. */
  removeBefore(position: FetchPosition): Promise<void>;
  /**
   * Compacts a topic that was created with `compaction`, at once and all of it. In each partition the last record of a key
   * stays, and offsets keep their numbers. Records without a key stay, and so does the last one of a partition. A record with a
   * key and the payload `null` is a delete marker: it supersedes what came before, and leaves later itself. Throws
   * `UNKNOWN_TOPIC`, and `INVALID_OPTION` for a topic that is not compacted.
   */
  compact(topic: string): Promise<void>;
}

/** A topic, and how it is kept. */
interface Topic {
  readonly partitions: readonly Partition[];
  readonly compaction: boolean;
}

/**
 * Opens an empty log in memory.
 *
 * @throws TailraceError `INVALID_OPTION`.
 */
export function memoryLog(options: MemoryLogOptions = {}): MemoryLog {
  const { partitions = 8, maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES, deleteRetentionMs = DAY_MS } = options;
  assertPartitions(partitions);
  if (!(maxMessageBytes >= 1)) throw invalid('maxMessageBytes', String(maxMessageBytes), 'a number, at least 1');
  if (!(deleteRetentionMs >= 0)) throw invalid('deleteRetentionMs', String(deleteRetentionMs), 'a number, at least 0');
  return new InMemoryLog({ partitions, maxMessageBytes, deleteRetentionMs });
}

const DAY_MS = 86_400_000;

class InMemoryLog implements MemoryLog {
  readonly capabilities: ReadonlySet<LogCapability> = new Set(['time-seek', 'compaction']);
  readonly #options: Required<MemoryLogOptions>;
  readonly #topics = new Map<string, Topic>();
  readonly #closing = new AbortController();
  readonly #appended = new Signal();
  #turn = 0;
  #lastMs = 0;

  constructor(options: Required<MemoryLogOptions>) {
    this.#options = options;
  }

  partitionCount(topic: string): Promise<number> {
    return this.#do(() => this.#topics.get(topic)?.partitions.length ?? 0);
  }

  ends(topic: string): Promise<PartitionEnds[]> {
    return this.#do(() => (this.#topics.get(topic)?.partitions ?? []).map(({ ends }) => ends));
  }

  offsetsAt(topic: string, time: Date): Promise<FetchPosition[]> {
    return this.#do(() => {
      assertTime(time);
      const partitions = this.#topics.get(topic)?.partitions ?? [];
      return partitions.map((one, partition) => ({ topic, partition, offset: one.offsetAt(time.getTime()) }));
    });
  }

  async fetch(positions: readonly FetchPosition[], options: FetchOptions = {}): Promise<LogRecord[]> {
    this.#assertOpen();
    const bounds = fetchBounds(options);
    const deadlineMs = performance.now() + bounds.maxWaitMs;
    const { signal: closing } = this.#closing;
    const abort = options.signal === undefined ? closing : AbortSignal.any([options.signal, closing]);
    for (;;) {
      const records = this.#read(positions, bounds);
      const leftMs = deadlineMs - performance.now();
      if (records.length > 0 || leftMs <= 0 || abort.aborted) return records;
      await this.#appended.wait(leftMs, abort);
      if (closing.aborted) return [];
    }
  }

  createTopic(topic: string, partitions: number, { compaction = false }: TopicOptions = {}): Promise<void> {
    return this.#do(() => {
      const known = this.#ensure(topic, partitions, compaction);
      const { length } = known.partitions;
      if (length !== partitions)
        throw invalid('partitions', String(partitions), `${length}: the topic ${topic} exists with that number`);
      if (compaction && !known.compaction)
        throw invalid('compaction', 'true', `false: the topic ${topic} exists, and is not compacted`);
    });
  }

  append({ topic, partition, offset, records, notBefore }: RecordsToAppend): Promise<void> {
    return this.#do(() => {
      if (notBefore !== undefined) requireCapability(this, 'server-side-delay', 'An append with notBefore');
      const now = this.#now();
      const target = this.#partition(topic, partition);
      target.append(
        offset,
        records.map((record) => this.#stored(topic, record, now)),
      );
      this.#appended.notify();
    });
  }

  publish(messages: Message | readonly Message[]): Promise<void> {
    return this.#do(() => {
      const all = 'id' in messages ? [messages] : messages;
      const encoded = all.map((message) => encodeMessage(message, this.#options.maxMessageBytes));
      const now = this.#now();
      const turn = this.#turn++;
      for (const message of encoded) {
        const { partitions } = this.#ensure(message.topic, this.#options.partitions, false);
        const count = partitions.length;
        const target = partitions[message.key === null ? turn % count : partitionOf(keyHash(message.key), count)];
        target?.append(target.ends.end, [{ record: recordOf(message, now), bytes: message.bytes, appendedAtMs: now }]);
      }
      this.#appended.notify();
    });
  }

  removeBefore({ topic, partition, offset }: FetchPosition): Promise<void> {
    return this.#do(() => this.#partition(topic, partition).removeBefore(offset));
  }

  compact(topic: string): Promise<void> {
    return this.#do(() => {
      const known = this.#topics.get(topic);
      if (known === undefined) throw unknownTopic(topic, 0, undefined);
      if (!known.compaction) throw invalid('topic', topic, 'one that was created with { compaction: true }');
      const now = this.#now();
      for (const partition of known.partitions) partition.compact(now, this.#options.deleteRetentionMs);
    });
  }

  close(): Promise<void> {
    this.#closing.abort();
    this.#topics.clear();
    return Promise.resolve();
  }

  /** Everything happens at once: nobody sees half of it. */
  #do<Result>(work: () => Result): Promise<Result> {
    return new Promise((resolve) => {
      this.#assertOpen();
      resolve(work());
    });
  }

  #read(positions: readonly FetchPosition[], bounds: FetchBounds): LogRecord[] {
    const readings = positions.map((position) => this.#partition(position.topic, position.partition).read(position));
    takeByTurns(rotated(readings, Math.random()), bounds);
    return readings.flatMap(({ records }) => records);
  }

  #ensure(topic: string, count: number, compaction: boolean): Topic {
    const known = this.#topics.get(topic);
    if (known !== undefined) return known;
    assertTopicName(topic);
    assertPartitions(count);
    const partitions = Array.from({ length: count }, (_, partition) => new Partition(topic, partition));
    const created = { partitions, compaction };
    this.#topics.set(topic, created);
    return created;
  }

  #partition(topic: string, partition: number): Partition {
    const partitions = this.#topics.get(topic)?.partitions;
    const found = partitions?.[partition];
    if (found === undefined) throw unknownTopic(topic, partition, partitions?.length);
    return found;
  }

  #stored(topic: string, record: NewRecord, appendedAtMs: number): StoredRecord {
    const headers = copyHeaders(record.type, record.headers);
    const bytes = sizeOf(topic, record);
    const { maxMessageBytes } = this.#options;
    if (bytes > maxMessageBytes) throw tooLarge(record.type, bytes, maxMessageBytes);
    return { record: { ...copyOf(record), headers }, bytes, appendedAtMs };
  }

  /** Never goes back, so that the offsets of a later time are not lower. */
  #now(): number {
    this.#lastMs = Math.max(this.#lastMs, Date.now());
    return this.#lastMs;
  }

  #assertOpen(): void {
    if (this.#closing.signal.aborted) throw new TailraceError('STOPPED', 'This log was closed. Open another one.');
  }
}

/** One record of each in turn, until there is no room; what short ones leave goes to long ones. */
function takeByTurns(readings: readonly Reading[], { maxRecords, maxRecordsEach, maxBytes }: FetchBounds): void {
  let [count, bytes] = [0, 0];
  let left = readings;
  for (let turn = 0; left.length > 0 && turn < maxRecordsEach; turn += 1) {
    for (const reading of left) {
      const size = reading.nextBytes ?? 0;
      if (count === maxRecords || (count > 0 && bytes + size > maxBytes)) return;
      if (reading.nextBytes === undefined) continue;
      reading.take();
      count += 1;
      bytes += size;
    }
    left = left.filter(({ nextBytes }) => nextBytes !== undefined);
  }
}

function recordOf(message: EncodedMessage, nowMs: number): NewRecord {
  const { id, kind, type, key, headers, payload, payloadBytes, occurredAt, expiresAt, delayMs } = message;
  const deliverAt = delayMs === null ? message.deliverAt : nowMs + delayMs;
  return {
    messageId: id,
    kind,
    type,
    key,
    headers: decodeHeaders(headers),
    payload,
    payloadBytes: payloadBytes === null ? null : Buffer.from(payloadBytes),
    occurredAt: new Date(occurredAt),
    ...(expiresAt !== null && { expiresAt: new Date(expiresAt) }),
    ...(deliverAt !== null && { deliverAt: new Date(deliverAt) }),
  };
}

function sizeOf(topic: string, { key, type, headers, payload, payloadBytes }: NewRecord): number {
  const texts = [topic, key ?? '', type, JSON.stringify(headers), payload ?? ''];
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), payloadBytes?.length ?? 0);
}

function unknownTopic(topic: string, partition: number, count: number | undefined): TailraceError {
  const why = count === undefined ? 'no such topic' : `only ${count}, counted from 0`;
  return new TailraceError(
    'UNKNOWN_TOPIC',
    `There is no partition ${partition} of the topic ${JSON.stringify(topic.slice(0, 200))} in this log: ${why}. createTopic creates a topic.`,
    { details: { topic: topic.slice(0, 200), partition } },
  );
}

function tooLarge(type: string, found: number, allowed: number): TailraceError {
  return new TailraceError(
    'MESSAGE_TOO_LARGE',
    `The message of type ${type} has ${found} bytes; at most ${allowed} are allowed. Raise maxMessageBytes, or store the payload elsewhere.`,
    { details: { type, found, allowed } },
  );
}
