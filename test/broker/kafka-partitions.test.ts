import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { keyHash, partitionOf } from '../../src/broker/partitioner.ts';

/** What the Java program beside it printed: see kafka-partitions/README.md. */
interface KafkaPartitions {
  readonly seed: number;
  readonly keys: number;
  readonly sha256OfKeys: string;
  readonly partitions: Readonly<Record<string, string>>;
}

const file = new URL('kafka-partitions/partitions.json', import.meta.url);
const kafka = JSON.parse(await readFile(file, 'utf8')) as KafkaPartitions;

/** First and last code points, as in KafkaPartitions.java. */
const RANGES: readonly (readonly [number, number])[] = [
  [0x20, 0x7e],
  [0x1, 0x1f],
  [0xa0, 0x24f],
  [0x300, 0x36f],
  [0x370, 0x3ff],
  [0x4e00, 0x9fff],
  [0xe000, 0xfffd],
  [0x1f300, 0x1f6ff],
  [0x10000, 0x10ffff],
];

/** The generator of KafkaPartitions.java: mulberry32. */
function generatedKeys(seed: number, count: number): string[] {
  let state = seed;
  const below = (limit: number): number => {
    state = (state + 0x6d2b79f5) | 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) % limit;
  };
  return Array.from({ length: count }, (_, n) => {
    const length = n % 100 === 99 ? 1_000 + below(1_000) : below(41);
    const range = below(RANGES.length + 1);
    const points = Array.from({ length }, () => {
      const [first, last] = RANGES[range < RANGES.length ? range : below(RANGES.length)] ?? [0, 0];
      return first + below(last - first + 1);
    });
    return String.fromCodePoint(...points);
  });
}

function sha256Of(keys: readonly string[]): string {
  const hash = createHash('sha256');
  for (const key of keys) {
    const bytes = Buffer.from(key, 'utf8');
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  }
  return hash.digest('hex');
}

function expectedPartitions(count: number): number[] {
  const text = kafka.partitions[count] ?? '';
  if (count <= 36) return Array.from(text, (digit) => Number.parseInt(digit, 36));
  const bytes = Buffer.from(text, 'base64');
  return Array.from({ length: bytes.length / 2 }, (_, at) => bytes.readUInt16BE(2 * at));
}

const keys = generatedKeys(kafka.seed, kafka.keys);

it('has the keys that Java Kafka was asked about: 10,000, of all kinds', () => {
  expect(keys).toHaveLength(10_000);
  expect(sha256Of(keys)).toBe(kafka.sha256OfKeys);
  expect(keys).toContain('');
  expect(keys.filter((key) => /[\u{10000}-\u{10ffff}]/u.test(key)).length).toBeGreaterThan(2_000);
  expect(Math.max(...keys.map((key) => key.length))).toBeGreaterThan(2_000);
});

it.each([3, 8, 12, 10_000])('gives each key the partition that Java Kafka gives it, of %i', (count) => {
  const expected = expectedPartitions(count);
  expect(new Set(expected).size).toBeGreaterThan(Math.min(count, 5_000) - 1); // nearly all that there are
  expect(keys.map((key) => partitionOf(keyHash(key), count))).toEqual(expected);
});
