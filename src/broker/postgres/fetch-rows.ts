import { TailraceError } from '../../base/errors.ts';
import { decodeHeaders } from '../../message/headers.ts';
import type { MessageKind } from '../../message/message.ts';
import { beyondEnd, removed } from '../checks.ts';
import type { FetchPosition } from '../log.ts';
import type { LogRecord } from '../record.ts';
import { type FetchRow, NO_PARTITION } from './fetch-statement.ts';
import { sizeOf, unpackRecords, type PackedRecord } from './packed-entry.ts';
import { beginsEntry, MOST_ENTRIES, type TailRow } from './tail-statement.ts';

/** A place in the log that names an outbox row which the reader's snapshot does not see. */
export interface MissingRow {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  /** The outbox position. */
  readonly id: string;
  /** Every transaction below `xmin` had ended when it was taken, and none from `xmax` on. */
  readonly snapshot: { readonly xmin: bigint; readonly xmax: bigint };
}

/** What one round trip found. */
export interface FetchPass {
  readonly records: LogRecord[];
  /** The positions that could not be read at all for now, since their very first row is missing. */
  readonly blocked: MissingRow[];
  /** Where positions go on that came upon offsets without a record only: by their place among the positions. */
  readonly moved: ReadonlyMap<number, FetchPosition>;
  /** Where the log ends, of positions of which it has brought all that there is. */
  readonly ends: ReadonlyMap<number, bigint>;
}

/** What a fetch may bring. */
export interface FetchLimits {
  readonly maxRecords: number;
  readonly maxRecordsEach: number;
  readonly maxBytes: number;
}

/**
 * Turns rows into records, and puts the records of each position together. Stops a position at its first missing row, and
 * never skips one.
 *
 * @param positions in the order that the statement was given.
 * @throws TailraceError `OFFSET_OUT_OF_RANGE`, `CORRUPT_ENTRY`; `UNKNOWN_TOPIC`: the topic was deleted.
 */
export function readRows(
  rows: readonly FetchRow[],
  positions: readonly FetchPosition[],
  limits: FetchLimits,
): FetchPass {
  const readings = positions.map((position) => new Reading(position, limits.maxBytes));
  for (const row of rows) {
    const reading = readings[Number(row[0]) - 1];
    if (reading === undefined)
      throw new RangeError(`The server answered for position ${row[0]} of ${positions.length}.`);
    reading.add(row);
  }
  const moved = new Map(readings.flatMap(({ movedTo }, n) => (movedTo === undefined ? [] : [[n, movedTo] as const])));
  const found = readings.reduce((sum, { records }) => sum + records.length, 0);
  const { maxRecords, maxRecordsEach } = limits;
  const isCut = found > maxRecords || readings.some(({ records }) => records.length > maxRecordsEach);
  if (isCut) cut(readings, limits);
  const ends = new Map(isCut ? [] : readings.flatMap(({ end }, n) => (end === undefined ? [] : [[n, end] as const])));
  return {
    records: readings.flatMap(({ records }) => records),
    blocked: readings.flatMap(({ blocked }) => blocked ?? []),
    moved,
    ends,
  };
}

/**
 * The same of the rows that were asked for at ends. `undefined`: they are not all plain, or more than the limits allow, and
 * have to be asked for as any others.
 */
export function readTail(
  rows: readonly TailRow[],
  positions: readonly FetchPosition[],
  limits: FetchLimits,
): FetchPass | undefined {
  const readings = positions.map((position) => new Reading(position, limits.maxBytes));
  const entries = positions.map(() => 0);
  let bytes = 0;
  for (const row of rows) {
    const at = Number(row[0]) - 1;
    if (readings[at]?.addPlain(row) !== true) return undefined;
    if (beginsEntry(row)) entries[at] = (entries[at] ?? 0) + 1;
    bytes += row.reduce((sum, text) => sum + (text?.length ?? 0), 0);
  }
  if (rows.length > limits.maxRecords || bytes > limits.maxBytes) return undefined;
  if (readings.some(({ records }) => records.length > limits.maxRecordsEach)) return undefined;
  const ends = readings.flatMap(({ next }, at) => ((entries[at] ?? 0) < MOST_ENTRIES ? [[at, next] as const] : []));
  return { records: readings.flatMap(({ records }) => records), blocked: [], moved: new Map(), ends: new Map(ends) };
}

/** Packed entries come whole. Leaves the first records of each position, as many of one as of any other that has as many. */
function cut(readings: readonly Reading[], { maxRecords, maxRecordsEach }: FetchLimits): void {
  let [room, others] = [maxRecords, readings.length];
  for (const { records } of [...readings].sort((a, b) => a.records.length - b.records.length)) {
    const share = Math.min(Math.ceil(room / others), maxRecordsEach);
    records.length = Math.min(records.length, share);
    room -= records.length;
    others -= 1;
  }
}

/** What was read from one position on. */
class Reading {
  readonly records: LogRecord[] = [];
  blocked: MissingRow | undefined;
  readonly #position: FetchPosition;
  readonly #maxBytes: number;
  /** The offset that comes next, whether it has a record or not. */
  #next: bigint;
  /** How many offsets there are from the position on, as the last row says. */
  #behind: string | null = null;
  #stopped = false;

  constructor(position: FetchPosition, maxBytes: number) {
    this.#position = position;
    this.#maxBytes = maxBytes;
    this.#next = position.offset;
  }

  get next(): bigint {
    return this.#next;
  }

  get movedTo(): FetchPosition | undefined {
    if (this.records.length > 0 || this.#next === this.#position.offset) return undefined;
    return { ...this.#position, offset: this.#next };
  }

  /** Where its partition ends, if it has been read so far. */
  get end(): bigint | undefined {
    if (this.#stopped || this.#behind === null) return undefined;
    return this.#next === this.#position.offset + BigInt(this.#behind) ? this.#next : undefined;
  }

  add(row: FetchRow): void {
    const [, n, id, messageId] = row;
    const packed = row[17];
    if (this.#stopped) return;
    this.#behind = row[18];
    if (packed !== null) {
      this.#unpack(packed, { base: BigInt(row[15] ?? 0), count: BigInt(row[16] ?? 0) });
      return;
    }
    if (id === null && messageId === null) throw notThere(this.#position, BigInt(n));
    if (this.#position.offset + BigInt(n) !== this.#next)
      throw removed(this.#position, this.#position.offset + BigInt(n));
    if (messageId === null) this.#stop(id ?? '', row);
    else {
      this.records.push(recordOf(row, messageId, this.#position, this.#next));
      this.#next += 1n;
    }
  }

  /** Adds a record of an entry that is not packed, if it is the next one and can be seen. */
  addPlain(row: TailRow): boolean {
    const [, n, , messageId] = row;
    if (n === null || messageId === null || this.#position.offset + BigInt(n) !== this.#next) return false;
    this.records.push(recordOf(row as unknown as FetchRow, messageId, this.#position, this.#next));
    this.#next += 1n;
    return true;
  }

  #unpack(base64: string, span: { readonly base: bigint; readonly count: bigint }): void {
    if (span.base > this.#next) throw removed(this.#position, span.base);
    const { topic, partition, offset: first } = this.#position;
    let bytes = 0;
    for (const packed of unpackRecords(Buffer.from(base64, 'base64'), span)) {
      if (packed.offset < first) continue;
      bytes += sizeOf(packed);
      // Of an entry that is larger than a fetch may be, as many as fit; the statement lets nothing follow it.
      if (bytes > this.#maxBytes && this.records.length > 0) {
        this.#stopped = true;
        return;
      }
      this.records.push(recordOfPacked(packed, topic, partition));
    }
    this.#next = span.base + span.count;
  }

  #stop(id: string, row: FetchRow): void {
    this.#stopped = true;
    if (this.records.length > 0 || this.#next !== this.#position.offset) return;
    this.blocked = { ...this.#position, id, snapshot: { xmin: BigInt(row[11] ?? 0), xmax: BigInt(row[12] ?? 0) } };
  }
}

function recordOf(row: FetchRow, messageId: string, { topic, partition }: FetchPosition, offset: bigint): LogRecord {
  const [, , , , kind, type, key, headers, payload, payloadHex, occurredAtMs, , , expiresAtMs, deliverAtMs] = row;
  return {
    topic,
    partition,
    offset,
    messageId,
    kind: kind as MessageKind,
    type,
    key,
    headers: decodeHeaders(headers),
    payload,
    payloadBytes: payloadHex === null ? null : Buffer.from(payloadHex, 'hex'),
    ...timesOf(Number(occurredAtMs), numberOf(expiresAtMs), numberOf(deliverAtMs)),
  };
}

/** The same as {@link recordOf} makes of its row: a time in seconds becomes milliseconds by the server's own steps. */
function recordOfPacked(packed: PackedRecord, topic: string, partition: number): LogRecord {
  const { offset, messageId, kind, type, key, headers, payload, payloadBytes } = packed;
  return {
    topic,
    partition,
    offset,
    messageId,
    kind: kind as MessageKind,
    type,
    key,
    headers: decodeHeaders(headers),
    payload,
    payloadBytes,
    ...timesOf(msOf(packed.occurredAt), msOf(packed.expiresAt), msOf(packed.deliverAt)),
  };
}

function timesOf(
  occurredAtMs: number | null,
  expiresAtMs: number | null,
  deliverAtMs: number | null,
): Pick<LogRecord, 'occurredAt' | 'expiresAt' | 'deliverAt'> {
  return {
    occurredAt: new Date(Math.round(occurredAtMs ?? 0)),
    ...(expiresAtMs !== null && { expiresAt: dateNotBefore(expiresAtMs) }),
    ...(deliverAtMs !== null && { deliverAt: dateNotBefore(deliverAtMs) }),
  };
}

function numberOf(text: string | null): number | null {
  return text === null ? null : Number(text);
}

function msOf(seconds: string | null): number | null {
  return seconds === null ? null : Number(seconds) * 1_000;
}

const YEAR_9999_MS = Date.UTC(9999, 11, 31);

/** Postgres counts microseconds: rounded up, a time is never too early. It also knows infinity. */
function dateNotBefore(ms: number): Date {
  return new Date(Math.max(-YEAR_9999_MS, Math.min(YEAR_9999_MS, Math.ceil(ms))));
}

/** @param by how far the position lies beyond the end, or, negative, before the start. */
function notThere(position: FetchPosition, by: bigint): TailraceError {
  const there = position.offset - by;
  if (there === NO_PARTITION) return deleted(position);
  return by < 0n ? removed(position, there) : beyondEnd(position, there);
}

function deleted({ topic }: FetchPosition): TailraceError {
  return new TailraceError(
    'UNKNOWN_TOPIC',
    `The topic ${topic} was deleted since it was read last. Where there is another of this name, its offsets begin with 0: ask where it starts, and read on from there.`,
    { details: { topic } },
  );
}
