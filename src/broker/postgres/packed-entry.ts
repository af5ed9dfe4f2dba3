import { deflateSync, inflateSync } from 'node:zlib';
import { TailraceError } from '../../base/errors.ts';

/** A message of a packed entry, as the outbox had it. */
export interface PackedRecord {
  readonly offset: bigint;
  /** Its position in the outbox, which may be gone. */
  readonly position: bigint;
  readonly messageId: string;
  readonly kind: string;
  readonly type: string;
  readonly key: string | null;
  /** The text of a JSON object. */
  readonly headers: string;
  readonly payload: string | null;
  readonly payloadBytes: Buffer | null;
  /** Times are seconds since 1970 with microseconds, as Postgres writes them: `1769936645.123456`, `Infinity`. */
  readonly occurredAt: string;
  readonly expiresAt: string | null;
  readonly deliverAt: string | null;
  readonly appendedAt: string;
}

/** The offsets of a packed entry: from `base` to before `base + count`. Some may have no record. */
export interface PackedSpan {
  readonly base: bigint;
  readonly count: bigint;
}

/** Begins every packed entry. Another format gets another number. */
const VERSION = 1;
/** The version, and the length of what follows once it is inflated: 4 bytes, big-endian. */
const HEADER_BYTES = 5;
/** Far above what is packed together: at most one message of 100,000,000 bytes, or some that are smaller. */
const MOST_BYTES = 512 * 1024 ** 2;
/** Fast: a third of the size at a tenth of the time that level 9 takes. */
const LEVEL = 1;

/**
 * Packs records that lie within a span, in ascending order of their offsets: a version, a length, and deflated (RFC 1950,
 * with its checksum) the number of records and each one's fields. Numbers are LEB128; a text or null is its length plus one,
 * or 0, and its bytes.
 */
export function packRecords(records: readonly PackedRecord[], { base }: PackedSpan): Buffer {
  const body = new Writer();
  body.number(BigInt(records.length));
  for (const record of records) {
    body.number(record.offset - base);
    body.number(record.position);
    body.raw(Buffer.from(record.messageId.replaceAll('-', ''), 'hex'));
    for (const text of [record.kind, record.type, record.key, record.headers, record.payload]) body.text(text);
    body.bytes(record.payloadBytes);
    for (const time of [record.occurredAt, record.expiresAt, record.deliverAt, record.appendedAt]) body.text(time);
  }
  const plain = body.toBuffer();
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt8(VERSION, 0);
  header.writeUInt32BE(plain.length, 1);
  return Buffer.concat([header, deflateSync(plain, { level: LEVEL })]);
}

/**
 * The records of a packed entry.
 *
 * @throws TailraceError `CORRUPT_ENTRY`: these are not the bytes that {@link packRecords} made for this span.
 */
export function unpackRecords(packed: Uint8Array, span: PackedSpan): PackedRecord[] {
  const reader = new Reader(inflated(packed), span);
  const count = reader.number();
  const records: PackedRecord[] = [];
  let least = span.base;
  for (let n = 0n; n < count; n++) {
    const offset = span.base + reader.number();
    if (offset < least || offset >= span.base + span.count)
      throw corrupt(span, `there is a record at offset ${offset}`);
    least = offset + 1n;
    records.push({
      offset,
      position: reader.number(),
      messageId: uuidOf(reader.raw(16)),
      kind: reader.present('kind'),
      type: reader.present('type'),
      key: reader.text(),
      headers: reader.present('headers'),
      payload: reader.text(),
      payloadBytes: reader.bytes(),
      occurredAt: reader.present('occurred_at'),
      expiresAt: reader.text(),
      deliverAt: reader.text(),
      appendedAt: reader.present('appended_at'),
    });
  }
  reader.assertAtEnd();
  return records;
}

/** What a record counts for where bytes are limited: as a fetch counts a row of the outbox. */
export function sizeOf({ key, headers, payload, payloadBytes }: PackedRecord): number {
  const body = payload === null ? (payloadBytes?.length ?? 0) : Buffer.byteLength(payload);
  return body + Buffer.byteLength(headers) + (key === null ? 0 : Buffer.byteLength(key));
}

function inflated(packed: Uint8Array): Buffer {
  const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.byteLength);
  if (bytes.length < HEADER_BYTES) throw corrupt(undefined, `it has ${bytes.length} bytes`);
  const version = bytes.readUInt8(0);
  if (version !== VERSION) throw corrupt(undefined, `its format is ${version}, expected ${VERSION}`);
  const length = bytes.readUInt32BE(1);
  if (length > MOST_BYTES) throw corrupt(undefined, `it says that it holds ${length} bytes`);
  let plain: Buffer;
  try {
    plain = inflateSync(bytes.subarray(HEADER_BYTES), { maxOutputLength: Math.max(length, 1) });
  } catch (error) {
    throw corrupt(undefined, 'it cannot be inflated', error);
  }
  if (plain.length !== length) throw corrupt(undefined, `it holds ${plain.length} bytes, expected ${length}`);
  return plain;
}

function uuidOf(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

function corrupt(span: PackedSpan | undefined, found: string, cause?: unknown): TailraceError {
  const where = span === undefined ? '' : ` from offset ${span.base}, ${span.count} long,`;
  return new TailraceError(
    'CORRUPT_ENTRY',
    `A packed entry of the log${where} cannot be read: ${found}. A later version wrote it, or somebody changed it. Nothing is skipped: use the newest version, restore the entry, or move the readers past it.`,
    { cause, ...(span !== undefined && { details: { base: span.base, count: span.count } }) },
  );
}

/** Bytes that grow. */
class Writer {
  #buffer = Buffer.allocUnsafe(64 * 1024);
  #length = 0;

  number(value: bigint): void {
    this.#room(10);
    let rest = value;
    for (; rest >= 128n; rest >>= 7n) this.#buffer[this.#length++] = Number(rest & 127n) | 128;
    this.#buffer[this.#length++] = Number(rest);
  }

  text(value: string | null): void {
    if (value === null) {
      this.number(0n);
      return;
    }
    const bytes = Buffer.byteLength(value);
    this.number(BigInt(bytes + 1));
    this.#room(bytes);
    this.#length += this.#buffer.write(value, this.#length);
  }

  bytes(value: Uint8Array | null): void {
    this.number(value === null ? 0n : BigInt(value.length + 1));
    if (value !== null) this.raw(value);
  }

  raw(value: Uint8Array): void {
    this.#room(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
  }

  toBuffer(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  #room(bytes: number): void {
    const wanted = this.#length + bytes;
    if (wanted <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(wanted, 2 * this.#buffer.length));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }
}

class Reader {
  readonly #bytes: Buffer;
  readonly #span: PackedSpan;
  #at = 0;

  constructor(bytes: Buffer, span: PackedSpan) {
    this.#bytes = bytes;
    this.#span = span;
  }

  number(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 64n; shift += 7n) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw corrupt(this.#span, 'it ends inside a number');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw corrupt(this.#span, 'a number is too long');
  }

  text(): string | null {
    return this.#sized()?.toString('utf8') ?? null;
  }

  /** A text that is never null. */
  present(name: string): string {
    const text = this.text();
    if (text === null) throw corrupt(this.#span, `a record has no ${name}`);
    return text;
  }

  /** A copy, so that what is kept of an entry does not keep all of it. */
  bytes(): Buffer | null {
    const found = this.#sized();
    return found === undefined ? null : Buffer.from(found);
  }

  raw(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw corrupt(this.#span, 'it ends inside a record');
    const found = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return found;
  }

  assertAtEnd(): void {
    if (this.#at !== this.#bytes.length) throw corrupt(this.#span, 'something follows its last record');
  }

  #sized(): Buffer | undefined {
    const length = this.number();
    if (length === 0n) return undefined;
    return this.raw(length > BigInt(this.#bytes.length) + 1n ? Infinity : Number(length - 1n));
  }
}
