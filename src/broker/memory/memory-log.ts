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
}

/**
 * A log in the memory of this process, for tests and development. It keeps every promise of a log but one: nothing
 * outlives the process. Nothing leaves it either, but by {@link MemoryLog.removeBefore}.
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
}

/**
 * Opens an empty log in memory.
 *
 * @throws TailraceError `INVALID_OPTION`.
 */
export function memoryLog(options: MemoryLogOptions = {}): MemoryLog {
  const { partitions = 8, maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES } = options;
  assertPartitions(partitions);
  if (!(maxMessageBytes >= 1)) throw invalid('maxMessageBytes', String(maxMessageBytes), 'a number, at least 1');
  return new InMemoryLog({ partitions, maxMessageBytes });
}

class InMemoryLog implements MemoryLog {
  readonly capabilities: ReadonlySet<LogCapability> = new Set(['time-seek']);
  readonly #options: Required<MemoryLogOptions>;
  readonly #topics = new Map<string, readonly Partition[]>();
  readonly #closing = new AbortController();
  readonly #appended = new Signal();
  #turn = 0;
  #lastMs = 0;

  constructor(options: Required<MemoryLogOptions>) {
    this.#options = options;
  }

  partitionCount(topic: string): Promise<number> {
    return this.#do(() => this.#topics.get(topic)?.length ?? 0);
  }

  ends(topic: string): Promise<PartitionEnds[]> {
    return this.#do(() => (this.#topics.get(topic) ?? []).map(({ ends }) => ends));
  }

  offsetsAt(topic: string, time: Date): Promise<FetchPosition[]> {
    return this.#do(() => {
      assertTime(time);
      const partitions = this.#topics.get(topic) ?? [];
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
      if (compaction) requireCapability(this, 'compaction', 'A topic that keeps the last record of a key');
      const { length } = this.#ensure(topic, partitions);
      if (length === partitions) return;
      throw invalid('partitions', String(partitions), `${length}: the topic ${topic} exists with that number`);
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
        const partitions = this.#topics.get(message.topic) ?? this.#ensure(message.topic, this.#options.partitions);
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

  #ensure(topic: string, partitions: number): readonly Partition[] {
    assertTopicName(topic);
    assertPartitions(partitions);
    const known = this.#topics.get(topic);
    if (known !== undefined) return known;
    const created = Array.from({ length: partitions }, (_, partition) => new Partition(topic, partition));
    this.#topics.set(topic, created);
    return created;
  }

  #partition(topic: string, partition: number): Partition {
    const found = this.#topics.get(topic)?.[partition];
    if (found !== undefined) return found;
    const count = this.#topics.get(topic)?.length;
    const why = count === undefined ? 'no such topic' : `only ${count}, counted from 0`;
    throw new TailraceError(
      'UNKNOWN_TOPIC',
      `There is no partition ${partition} of the topic ${JSON.stringify(topic.slice(0, 200))} in this log: ${why}. createTopic creates a topic.`,
      { details: { topic: topic.slice(0, 200), partition } },
    );
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
function takeByTurns(readings: readonly Reading[], { maxRecords, maxBytes }: FetchBounds): void {
  let [count, bytes] = [0, 0];
  let left = readings;
  while (left.length > 0) {
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

function tooLarge(type: string, found: number, allowed: number): TailraceError {
  return new TailraceError(
    'MESSAGE_TOO_LARGE',
    `The message of type ${type} has ${found} bytes; at most ${allowed} are allowed. Raise maxMessageBytes, or store the payload elsewhere.`,
    { details: { type, found, allowed } },
  );
}
