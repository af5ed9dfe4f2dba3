import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { keyHash, murmur2, partitionAmong, partitionOf, positive } from '../../src/broker/partitioner.ts';

/** Hashes that Kafka's own test of its murmur2 expects. */
const KAFKA_HASHES: readonly (readonly [string, number])[] = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
];

describe('murmur2', () => {
  it.each(KAFKA_HASHES)('hashes %s as Java Kafka does', (text, expected) => {
    expect(murmur2(Buffer.from(text))).toBe(expected);
  });

  it('hashes a range of a larger buffer as it hashes a copy of it', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 9 }), (bytes, around) => {
        const chunk = Buffer.concat([around, bytes, around]);
        expect(murmur2(chunk, around.length, around.length + bytes.length)).toBe(murmur2(bytes));
      }),
    );
  });

  it('tells apart keys that differ in one byte, whatever its place', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 40 }),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (bytes, at, flip) => {
          const other = Uint8Array.from(bytes);
          const index = at % bytes.length;
          other[index] = (other[index] ?? 0) ^ flip;
          expect(murmur2(other)).not.toBe(murmur2(bytes)); // each step can be undone, so this holds for every input
        },
      ),
    );
  });
});

describe('keyHash', () => {
  it('is -1 without a key, and not negative with one', () => {
    expect(keyHash(null)).toBe(-1);
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (key) => {
        expect(keyHash(key)).toBe(positive(murmur2(new TextEncoder().encode(key))));
        expect(keyHash(key)).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  it('drops the sign bit, as Kafka does, rather than negating', () => {
    expect(keyHash('21')).toBe(-973932308 & 0x7fffffff);
  });
});

describe('partitionOf', () => {
  it('is the remainder, so that a key goes where a Java Kafka producer sends it', () => {
    expect(partitionOf(keyHash('foobar'), 8)).toBe((-790332482 & 0x7fffffff) % 8);
    expect(partitionOf(keyHash('21'), 1)).toBe(0);
  });
});

describe('partitionAmong', () => {
  const hashes = fc.nat(0x7fffffff);
  const growth = fc
    .uniqueArray(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 4 })
    .map((counts) => counts.sort((a, b) => a - b));

  it('moves a key only to a partition that was added, or not at all', () => {
    fc.assert(
      fc.property(hashes, growth, (hash, counts) => {
        const now = partitionAmong(hash, counts);
        expect(now).toBeLessThan(counts.at(-1)!);
        if (counts.length === 1) return;
        const before = partitionAmong(hash, counts.slice(0, -1));
        if (now !== before) expect(now).toBeGreaterThanOrEqual(counts.at(-2)!);
      }),
    );
  });

  it('is where Java Kafka sends a key, where each number is a multiple of the one before', () => {
    fc.assert(
      fc.property(
        hashes,
        fc.integer({ min: 1, max: 9 }),
        fc.array(fc.integer({ min: 2, max: 4 }), { maxLength: 3 }),
        (hash, first, factors) => {
          const counts = [first];
          for (const factor of factors) counts.push((counts.at(-1) ?? 1) * factor);
          expect(partitionAmong(hash, counts)).toBe(partitionOf(hash, counts.at(-1)!));
        },
      ),
    );
  });

  it('gives every partition the same share of the hashes after one change', () => {
    const count = fc.integer({ min: 1, max: 100 });
    fc.assert(
      fc.property(count, count, (one, other) => {
        const counts = [Math.min(one, other), Math.max(one, other) + 1];
        const shares = Array.from({ length: counts[1]! }, () => 0);
        for (let hash = 0; hash < counts[0]! * counts[1]!; hash += 1) shares[partitionAmong(hash, counts)]! += 1;
        expect(new Set(shares).size).toBe(1);
      }),
      { numRuns: 50 },
    );
  });
});
