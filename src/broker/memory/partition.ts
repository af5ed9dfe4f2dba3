import { appendConflict, belowZero, beyondEnd, removed } from '../checks.ts';
import type { FetchPosition, PartitionEnds } from '../log.ts';
import type { LogRecord, NewRecord } from '../record.ts';

/** A record as it is kept: nobody else has it, so it stays as it is. */
export interface StoredRecord {
  readonly record: NewRecord;
  readonly bytes: number;
  readonly appendedAtMs: number;
}

/** The records of one partition. */
export class Partition {
  readonly #topic: string;
  readonly #partition: number;
  #start = 0n;
  #records: StoredRecord[] = [];

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
    for (const record of records.slice(present)) this.#records.push(record);
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
    return new Reading(position, this.#records, Number(offset - this.#start));
  }

  /** The offset of the first record appended at a time or later; the end if there is none. */
  offsetAt(timeMs: number): bigint {
    const index = this.#records.findIndex(({ appendedAtMs }) => appendedAtMs >= timeMs);
    return index < 0 ? this.#end : this.#start + BigInt(index);
  }

  /** Forgets every record below an offset, at most all. */
  removeBefore(offset: bigint): void {
    const count = Number(offset - this.#start);
    if (count <= 0) return;
    this.#start = offset < this.#end ? offset : this.#end;
    this.#records = this.#records.slice(count);
  }

  get #end(): bigint {
    return this.#start + BigInt(this.#records.length);
  }

  #at(offset: bigint): FetchPosition {
    return { topic: this.#topic, partition: this.#partition, offset };
  }

  /** Of what was removed, nobody knows any more. */
  #mayBe({ messageId }: NewRecord, offset: bigint): boolean {
    const stored = this.#records[Number(offset - this.#start)];
    return stored === undefined || stored.record.messageId === messageId;
  }
}

/** A place that moves on through a partition. Copies are given out, so that nobody changes what is kept. */
export class Reading {
  readonly records: LogRecord[] = [];
  readonly #position: FetchPosition;
  readonly #stored: readonly StoredRecord[];
  readonly #first: number;

  constructor(position: FetchPosition, stored: readonly StoredRecord[], first: number) {
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
    const { topic, partition, offset } = this.#position;
    this.records.push({ topic, partition, offset: offset + BigInt(this.records.length), ...copyOf(stored.record) });
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
