import { appendConflict, belowZero, beyondEnd, removed } from '../checks.ts';
import { isDeleteMarker } from '../delete-marker.ts';
import type { FetchPosition, PartitionEnds } from '../log.ts';
import type { LogRecord, NewRecord } from '../record.ts';

/** A record as it is kept: nobody else has it, so it stays as it is. */
export interface StoredRecord {
  readonly record: NewRecord;
  readonly bytes: number;
  readonly appendedAtMs: number;
}

interface PlacedRecord extends StoredRecord {
  readonly offset: bigint;
}

/** The records of one partition, in the order of their offsets. Where it was compacted, there are holes between them. */
export class Partition {
  readonly #topic: string;
  readonly #partition: number;
  #start = 0n;
  #end = 0n;
  #records: PlacedRecord[] = [];
  /** Delete markers that a compaction has left, and when it did. */
  readonly #markers = new Map<bigint, number>();

  constructor(topic: string, partition: number) {
    this.#topic = topic;
    this.#partition = partition;
  }

  get ends(): PartitionEnds {
    return { partition: this.#partition, start: this.#start, end: this.#end };
  }

  /**
   * What is there already, by its message ids, is not appended again.
   *
   * @throws TailraceError `APPEND_CONFLICT`, `OFFSET_OUT_OF_RANGE`.
   */
  append(offset: bigint, records: readonly StoredRecord[]): void {
    if (offset < 0n) throw belowZero(this.#at(offset));
    const present = Number(this.#end - offset);
    const isSame = records
      .slice(0, Math.max(present, 0))
      .every(({ record }, n) => this.#mayBe(record, offset + BigInt(n)));
    if (present < 0 || !isSame) throw appendConflict(this.#at(offset), this.#end);
    for (const record of records.slice(present)) this.#records.push({ ...record, offset: this.#end++ });
  }

  /**
   * Looks at one record after another, from a position on.
   *
   * @throws TailraceError `OFFSET_OUT_OF_RANGE`.
   */
  read(position: FetchPosition): Reading {
    const { offset } = position;
    if (offset < 0n) throw belowZero(position);
    if (offset < this.#start) throw removed(position, this.#start);
    if (offset > this.#end) throw beyondEnd(position, this.#end);
    return new Reading(position, this.#records, this.#indexOf(offset));
  }

  /** The offset of the first record appended at a time or later; the end if there is none. */
  offsetAt(timeMs: number): bigint {
    return this.#records.find(({ appendedAtMs }) => appendedAtMs >= timeMs)?.offset ?? this.#end;
  }

  /** Forgets every record below an offset, at most all. */
  removeBefore(offset: bigint): void {
    if (offset <= this.#start) return;
    this.#records = this.#records.slice(this.#indexOf(offset));
    this.#start = offset < this.#end ? offset : this.#end;
  }

  /**
   * Forgets what a later record of the same key supersedes, and delete markers that an earlier compaction left so long ago.
   * The last record stays in any case, so that who reads on from offset to offset comes to the end.
   */
  compact(nowMs: number, deleteRetentionMs: number): void {
    const last = new Map(this.#records.map(({ record, offset }) => [record.key, offset]));
    this.#records = this.#records.filter(({ record, offset }) => {
      if (record.key === null || offset === this.#end - 1n) return true;
      if (last.get(record.key) !== offset) return false;
      const leftAtMs = this.#markers.get(offset);
      return leftAtMs === undefined || nowMs - leftAtMs < deleteRetentionMs;
    });
    this.#noteMarkers(nowMs);
  }

  /** Those that are left delete nothing any more from now on, unless they are known already. */
  #noteMarkers(nowMs: number): void {
    const left = this.#records.filter(({ record }) => record.key !== null && isDeleteMarker(record.payload));
    const known = new Map(this.#markers);
    this.#markers.clear();
    for (const { offset } of left) this.#markers.set(offset, known.get(offset) ?? nowMs);
  }

  /** Of the first record at an offset or behind it; their number if there is none. */
  #indexOf(offset: bigint): number {
    let [low, high] = [0, this.#records.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#records[middle]?.offset ?? offset) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #at(offset: bigint): FetchPosition {
    return { topic: this.#topic, partition: this.#partition, offset };
  }

  /** Of what was removed, nobody knows any more. */
  #mayBe({ messageId }: NewRecord, offset: bigint): boolean {
    const stored = this.#records[this.#indexOf(offset)];
    return stored?.offset !== offset || stored.record.messageId === messageId;
  }
}

/** A place that moves on through a partition. Copies are given out, so that nobody changes what is kept. */
export class Reading {
  readonly records: LogRecord[] = [];
  readonly #position: FetchPosition;
  readonly #stored: readonly PlacedRecord[];
  readonly #first: number;

  constructor(position: FetchPosition, stored: readonly PlacedRecord[], first: number) {
    this.#position = position;
    this.#stored = stored;
    this.#first = first;
  }

  /** The size of the next record; `undefined` at the end. */
  get nextBytes(): number | undefined {
    return this.#stored[this.#first + this.records.length]?.bytes;
  }

  /** Adds the next record to those that were read. */
  take(): void {
    const stored = this.#stored[this.#first + this.records.length];
    if (stored === undefined) return;
    const { topic, partition } = this.#position;
    this.records.push({ topic, partition, offset: stored.offset, ...copyOf(stored.record) });
  }
}

/** The same record, sharing nothing that can be changed. Headers are frozen. */
export function copyOf(record: NewRecord): NewRecord {
  const { payloadBytes, occurredAt, expiresAt, deliverAt } = record;
  return {
    ...record,
    payloadBytes: payloadBytes === null ? null : Buffer.from(payloadBytes),
    occurredAt: new Date(occurredAt),
    ...(expiresAt !== undefined && { expiresAt: new Date(expiresAt) }),
    ...(deliverAt !== undefined && { deliverAt: new Date(deliverAt) }),
  };
}
