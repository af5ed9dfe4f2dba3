import { TailraceError } from '../base/errors.ts';
import { lsn, type Lsn } from '../base/lsn.ts';

/** A table as the stream announces it, before its first change and after each alteration. */
export interface Relation {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly string[];
}

/**
 * What the decoder finds, in stream order. Changes come between `begin` and `commit` of their transaction, whole
 * transactions in commit order.
 */
export interface ReplicationHandler {
  /** A committed transaction starts. `commitLsn` is where its commit record starts, `xid` its low 32 bits. */
  begin(commitLsn: Lsn, xid: number): void;
  /** It ends. `endLsn` is the position after its commit record: what is acknowledged once it is durable. */
  commit(commitLsn: Lsn, endLsn: Lsn): void;
  relation(relation: Relation): void;
  /** A row was inserted: its columns start at `start`, to be read by {@link readTuple}. Valid only during the call. */
  insert(relationId: number, buffer: Buffer, start: number, end: number): void;
  /** Everything below `walEnd` has been sent. */
  keepalive(walEnd: Lsn, replyRequested: boolean): void;
}

const XLOG_DATA = 0x77; // 'w'
const KEEPALIVE = 0x6b; // 'k'
const XLOG_HEADER_BYTES = 25;

const BEGIN = 0x42;
const COMMIT = 0x43;
const INSERT = 0x49;
const RELATION = 0x52;
/** Message types that protocol version 1 has and that carry nothing for an insert-only reader. */
const PASSED_OVER: ReadonlySet<number> = new Set(Array.from('YOUDTM', (type) => type.charCodeAt(0)));

/**
 * Decodes the content of one CopyData message of a logical replication stream: pgoutput, protocol version 1, text columns.
 *
 * @see https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 * @throws TailraceError `PROTOCOL_VIOLATION`: bytes that are not such a message.
 */
export function decodeCopyData(buffer: Buffer, start: number, end: number, handler: ReplicationHandler): void {
  const type = start < end ? buffer[start] : undefined;
  if (type === XLOG_DATA) {
    expectBytes(start + XLOG_HEADER_BYTES < end, 'a WAL message');
    decodeChange(buffer, start + XLOG_HEADER_BYTES, end, handler);
  } else if (type === KEEPALIVE) {
    expectBytes(start + 18 === end, 'a keepalive');
    handler.keepalive(lsn(buffer.readBigUInt64BE(start + 1)), buffer[start + 17] === 1);
  } else {
    throw violation(`a replication message of type ${describeType(type)}, expected w or k`);
  }
}

/**
 * How long after its commit a transaction was sent, in milliseconds by the server's clock: of a CopyData message with the
 * beginning of a transaction; of any other message `undefined`.
 */
export function latenessOf(buffer: Buffer, start: number, end: number): number | undefined {
  const begin = start + XLOG_HEADER_BYTES;
  if (begin + 21 !== end || buffer[start] !== XLOG_DATA || buffer[begin] !== BEGIN) return undefined;
  const sent = start + 17;
  const committed = begin + 9;
  const high = buffer.readInt32BE(sent) - buffer.readInt32BE(committed);
  const low = buffer.readUInt32BE(sent + 4) - buffer.readUInt32BE(committed + 4);
  return (high * 2 ** 32 + low) / 1_000;
}

function decodeChange(buffer: Buffer, start: number, end: number, handler: ReplicationHandler): void {
  const type = buffer[start] ?? 0;
  switch (type) {
    case INSERT:
      expectBytes(start + 6 <= end && buffer[start + 5] === 0x4e, 'an insert');
      handler.insert(buffer.readUInt32BE(start + 1), buffer, start + 6, end);
      return;
    case BEGIN:
      expectBytes(start + 21 === end, 'a begin');
      handler.begin(lsn(buffer.readBigUInt64BE(start + 1)), buffer.readUInt32BE(start + 17));
      return;
    case COMMIT:
      expectBytes(start + 26 === end, 'a commit');
      handler.commit(lsn(buffer.readBigUInt64BE(start + 2)), lsn(buffer.readBigUInt64BE(start + 10)));
      return;
    case RELATION:
      handler.relation(decodeRelation(buffer, start, end));
      return;
    default:
      if (!PASSED_OVER.has(type)) throw violation(`a change of type ${describeType(type)}`);
  }
}

function decodeRelation(buffer: Buffer, start: number, end: number): Relation {
  expectBytes(start + 5 <= end, 'a relation');
  let at = start + 5;
  const text = (): string => {
    const stop = buffer.indexOf(0, at);
    expectBytes(stop >= 0 && stop < end, 'a relation');
    const value = buffer.toString('utf8', at, stop);
    at = stop + 1;
    return value;
  };
  const schema = text();
  const name = text();
  expectBytes(at + 3 <= end, 'a relation');
  const count = buffer.readUInt16BE(at + 1);
  at += 3;
  const columns: string[] = [];
  for (let n = 0; n < count; n++) {
    at += 1; // whether the column is part of the key
    columns.push(text());
    at += 8; // type and type modifier
  }
  expectBytes(at === end, 'a relation');
  return { id: buffer.readUInt32BE(start + 1), schema, name, columns };
}

/** Where the columns of one row stand in a buffer. One object serves any number of rows. */
export class TupleColumns {
  /** Where the text of column n starts. */
  readonly starts: number[] = [];
  /** How many bytes it has; {@link NULL_COLUMN} or {@link UNCHANGED_COLUMN} where it is not there. */
  readonly lengths: number[] = [];
}

/** The column is null. */
export const NULL_COLUMN = -1;
/** The column is stored out of line and was not changed, so it was not sent. */
export const UNCHANGED_COLUMN = -2;

/**
 * Finds the columns of the row that starts at `start`, and returns where it ends. Copies nothing.
 *
 * @throws TailraceError `PROTOCOL_VIOLATION`: not a row, or one that does not end by `end`.
 */
export function readTuple(buffer: Buffer, start: number, end: number, into: TupleColumns): number {
  expectBytes(start + 2 <= end, 'a row');
  const count = buffer.readUInt16BE(start);
  let at = start + 2;
  for (let n = 0; n < count; n++) {
    expectBytes(at < end, 'a row');
    const kind = buffer[at];
    at += 1;
    if (kind === 0x74) {
      expectBytes(at + 4 <= end, 'a row');
      const length = buffer.readUInt32BE(at);
      at += 4;
      into.starts[n] = at;
      into.lengths[n] = length;
      at += length;
      expectBytes(at <= end, 'a row');
    } else {
      into.starts[n] = at;
      into.lengths[n] = absentColumn(kind);
    }
  }
  return at;
}

function absentColumn(kind: number | undefined): number {
  if (kind === 0x6e) return NULL_COLUMN;
  if (kind === 0x75) return UNCHANGED_COLUMN;
  throw violation(`a column of kind ${describeType(kind)}, expected t, n or u`);
}

function expectBytes(holds: boolean, what: string): void {
  if (!holds) throw violation(`${what} of the wrong length or shape`);
}

function violation(found: string): TailraceError {
  return new TailraceError(
    'PROTOCOL_VIOLATION',
    `The replication stream holds ${found}. Expected pgoutput, protocol version 1; reconnect, and check what stands between here and the server.`,
    { retryable: true },
  );
}

function describeType(byte: number | undefined): string {
  return byte === undefined ? 'nothing' : `0x${byte.toString(16).padStart(2, '0')}`;
}
