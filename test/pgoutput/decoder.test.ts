import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isTailraceError } from '../../src/base/errors.ts';
import { CopyBothReader } from '../../src/pgoutput/copy-both.ts';
import {
  decodeCopyData,
  latenessOf,
  NULL_COLUMN,
  readTuple,
  TupleColumns,
  UNCHANGED_COLUMN,
  type ReplicationHandler,
} from '../../src/pgoutput/decoder.ts';
import { begin, commit, frame, insert, keepalive, relation, xlogData, type Column } from './messages.ts';

type Seen = readonly unknown[];

function readColumns(buffer: Buffer, start: number, end: number): Column[] {
  const tuple = new TupleColumns();
  const stop = readTuple(buffer, start, end, tuple);
  expect(stop).toBe(end);
  return tuple.lengths.map((length, n) => {
    if (length === NULL_COLUMN) return null;
    if (length === UNCHANGED_COLUMN) return undefined;
    const at = tuple.starts[n] ?? 0;
    return buffer.toString('utf8', at, at + length);
  });
}

function recorder(): { seen: Seen[]; handler: ReplicationHandler } {
  const seen: Seen[] = [];
  const handler: ReplicationHandler = {
    begin: (commitLsn, xid) => seen.push(['begin', commitLsn, xid]),
    commit: (commitLsn, endLsn) => seen.push(['commit', commitLsn, endLsn]),
    relation: (found) => seen.push(['relation', found]),
    insert: (id, buffer, start, end) => seen.push(['insert', id, readColumns(buffer, start, end)]),
    keepalive: (walEnd, replyRequested) => seen.push(['keepalive', walEnd, replyRequested]),
  };
  return { seen, handler };
}

/** Pushes a byte stream in the given slices through reader and decoder; other messages are seen by their type. */
function readStream(chunks: readonly Buffer[]): Seen[] {
  const { seen, handler } = recorder();
  const reader = new CopyBothReader({
    copyData: (buffer, start, end) => {
      decodeCopyData(buffer, start, end, handler);
    },
    otherMessage: (message) => seen.push(['other', message.toString('latin1', 0, 1)]),
  });
  for (const chunk of chunks) reader.push(chunk);
  return seen;
}

function slice(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const edges = [0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return edges.slice(1).map((edge, n) => bytes.subarray(edges[n], edge));
}

const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const name = fc.string({ minLength: 1, maxLength: 20, unit: 'grapheme' }).filter((text) => !text.includes('\0'));
const column: fc.Arbitrary<Column> = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.constant(null),
  fc.constant(undefined),
);

/** A message beside what the decoder must make of it. */
const message: fc.Arbitrary<{ bytes: Buffer; seen: Seen }> = fc.oneof(
  fc.tuple(u64, u32).map(([at, xid]) => ({ bytes: frame('d', xlogData(begin(at, xid))), seen: ['begin', at, xid] })),
  fc.tuple(u64, u64).map(([at, end]) => ({ bytes: frame('d', xlogData(commit(at, end))), seen: ['commit', at, end] })),
  fc
    .tuple(u64, fc.boolean())
    .map(([at, reply]) => ({ bytes: frame('d', keepalive(at, reply)), seen: ['keepalive', at, reply] })),
  fc.tuple(u32, fc.array(column, { maxLength: 8 })).map(([id, columns]) => ({
    bytes: frame('d', xlogData(insert(id, columns))),
    seen: ['insert', id, columns],
  })),
  fc.tuple(u32, name, name, fc.array(name, { maxLength: 8 })).map(([id, schema, table, columns]) => ({
    bytes: frame('d', xlogData(relation(id, schema, table, columns))),
    seen: ['relation', { id, schema, name: table, columns }],
  })),
  fc
    .constantFrom('N', 'S', 'E', 'c')
    .map((type) => ({ bytes: frame(type, Buffer.from('x\0')), seen: ['other', type] })),
);

describe('reading a replication stream', () => {
  test('gives the same messages however the bytes are sliced', () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 30 }), fc.array(fc.nat(), { maxLength: 60 }), (messages, cuts) => {
        const chunks = slice(Buffer.concat(messages.map(({ bytes }) => bytes)), cuts);
        expect(readStream(chunks)).toEqual(messages.map(({ seen }) => seen));
      }),
    );
  });

  test('one byte at a time', () => {
    const bytes = frame('d', xlogData(insert(7, ['42', null, undefined, 'Grüße'])));
    expect(readStream([...bytes].map((byte) => Buffer.from([byte])))).toEqual([
      ['insert', 7, ['42', null, undefined, 'Grüße']],
    ]);
  });

  test('garbage raises PROTOCOL_VIOLATION or nothing, and never reads past the message', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.constantFrom('', 'w', 'k', 'wI', 'wR', 'wB', 'wC'),
        (garbage, prefix) => {
          const [outer = '', inner = ''] = prefix;
          const head =
            outer === 'w'
              ? Buffer.concat([Buffer.from(outer), Buffer.alloc(24), Buffer.from(inner)])
              : Buffer.from(outer);
          const content = Buffer.concat([head, garbage]);
          const padded = Buffer.concat([content, Buffer.alloc(64, 0x74)]);
          try {
            decodeCopyData(padded, 0, content.length, recorderOfTuples(content.length));
          } catch (error) {
            if (!isTailraceError(error, 'PROTOCOL_VIOLATION')) throw error;
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test.each([3, 0x7fffffff, 0xffffffff])('a message length of %i is refused', (length) => {
    const bytes = Buffer.alloc(5);
    bytes[0] = 0x64;
    bytes.writeUInt32BE(length, 1);
    expect(() => readStream([bytes])).toThrow(expect.objectContaining({ code: 'PROTOCOL_VIOLATION' }) as Error);
  });

  test('a message cut short is refused', () => {
    const whole = xlogData(insert(7, ['42', 'orders']));
    for (let end = 1; end < whole.length; end++) {
      expect(() => {
        decodeCopyData(whole, 0, end, recorder().handler);
      }).toThrow(expect.objectContaining({ code: 'PROTOCOL_VIOLATION' }) as Error);
    }
  });
});

/** Reads every row it is given and checks that it stays within the message. */
function recorderOfTuples(end: number): ReplicationHandler {
  return {
    ...recorder().handler,
    insert: (_id, buffer, start, stop) => {
      expect(readTuple(buffer, start, stop, new TupleColumns())).toBeLessThanOrEqual(end);
    },
  };
}

test.each([
  [0n, 0n, 0],
  [750_000_000_123_456n, 750_000_000_000_456n, 123],
  [4_294_967_297_000n, 4_294_967_295_000n, 2],
  [1_000n, 3_000n, -2],
])('a transaction that was sent at %d and committed at %d was late by %d ms', (sentAt, committedAt, late) => {
  const bytes = xlogData(begin(1n, 2));
  bytes.writeBigInt64BE(sentAt, 17);
  bytes.writeBigInt64BE(committedAt, 25 + 9);
  expect(latenessOf(bytes, 0, bytes.length)).toBe(late);
  const inside = Buffer.concat([Buffer.alloc(3), bytes, Buffer.alloc(3)]);
  expect(latenessOf(inside, 3, 3 + bytes.length)).toBe(late);
});

test('only the beginning of a transaction tells how late it is', () => {
  for (const bytes of [xlogData(commit(1n, 2n)), keepalive(1n, false), xlogData(insert(1, ['a'])), Buffer.alloc(0)]) {
    expect(latenessOf(bytes, 0, bytes.length)).toBeUndefined();
  }
});
