import { deflateSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packRecords, sizeOf, unpackRecords, type PackedRecord } from '../../../src/broker/postgres/packed-entry.ts';

const text = fc.string({ unit: 'grapheme', maxLength: 40 });
const time = fc.oneof(fc.constantFrom('Infinity', '-Infinity', '-0.000001'), fc.constant('1769936645.123456'));
const big = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });

const record = fc.record({
  offset: big,
  position: big,
  messageId: fc.uuid(),
  kind: fc.constantFrom('event', 'command', 'document'),
  type: text,
  key: fc.option(text),
  headers: text,
  payload: fc.option(text),
  payloadBytes: fc.option(fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes))),
  occurredAt: time,
  expiresAt: fc.option(time),
  deliverAt: fc.option(time),
  appendedAt: time,
});

/** Records of a span, ascending, with gaps or without. */
const entry = fc
  .tuple(fc.array(record, { maxLength: 30 }), fc.bigInt({ min: 0n, max: 2n ** 60n }), fc.array(fc.nat(5)))
  .map(([found, base, gaps]) => {
    let next = base;
    const records = found.map((one, n): PackedRecord => {
      next += BigInt(gaps[n] ?? 0) + 1n;
      return { ...one, offset: next - 1n };
    });
    return { records, span: { base, count: next - base + 1n } };
  });

describe('a packed entry', () => {
  it('gives back what was packed', () => {
    fc.assert(
      fc.property(entry, ({ records, span }) => {
        expect(unpackRecords(packRecords(records, span), span)).toEqual(records);
      }),
      { numRuns: 300 },
    );
  });

  it('is refused where it was cut off, and never read as anything else where a byte is another', () => {
    fc.assert(
      fc.property(entry, fc.nat(), fc.integer({ min: 1, max: 255 }), ({ records, span }, at, change) => {
        const packed = packRecords(records, span);
        expect(() => unpackRecords(packed.subarray(0, at % packed.length), span)).toThrow(corrupt);
        packed[at % packed.length]! ^= change;
        let found: PackedRecord[];
        try {
          found = unpackRecords(packed, span);
        } catch (error) {
          expect(error).toMatchObject(corrupt);
          return;
        }
        expect(found).toEqual(records); // it was one of the bits that fill up the last byte
      }),
      { numRuns: 300 },
    );
  });

  it('is refused where the bytes are anything else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, framed) => {
        const packed = framed ? frame(Buffer.from(bytes)) : bytes;
        try {
          const found = unpackRecords(packed, { base: 0n, count: 10n });
          expect(found.length).toBeLessThanOrEqual(10); // what happens to be an entry
        } catch (error) {
          expect(error).toMatchObject(corrupt);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('is refused for another span, and never takes more memory than it says', () => {
    const records = [{ ...fc.sample(record, 1)[0]!, offset: 7n }];
    const packed = packRecords(records, { base: 5n, count: 3n });
    expect(() => unpackRecords(packed, { base: 5n, count: 2n })).toThrow(/record at offset 7/);
    const bomb = frame(Buffer.alloc(10_000_000));
    bomb.writeUInt32BE(100, 1);
    expect(() => unpackRecords(bomb, { base: 0n, count: 1n })).toThrow(corrupt);
  });

  it('counts a record as a fetch counts a row', () => {
    const one = { ...fc.sample(record, 1)[0]!, key: 'é', headers: '{}', payload: '"ü"', payloadBytes: null };
    expect(sizeOf(one)).toBe(2 + 2 + 4);
    expect(sizeOf({ ...one, key: null, payload: null, payloadBytes: Buffer.alloc(9) })).toBe(2 + 9);
  });
});

const corrupt = expect.objectContaining({ code: 'CORRUPT_ENTRY' }) as Error;

function frame(plain: Buffer): Buffer {
  const header = Buffer.alloc(5);
  header[0] = 1;
  header.writeUInt32BE(plain.length, 1);
  return Buffer.concat([header, deflateSync(plain)]);
}
