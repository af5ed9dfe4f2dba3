import { expect, test } from 'vitest';
import { adaptiveReadPacing } from '../../src/source/wal/read-pacing.ts';

/** Feeds reads of `bytes` every `everyMs` for a second; answers the share after which a pause was asked for. */
function pausedShare(bytes: number, everyMs: number, lateMs = 0): number {
  const pacing = adaptiveReadPacing();
  let reads = 0;
  let pauses = 0;
  for (let nowMs = 0; nowMs < 1000; nowMs += everyMs) {
    reads += 1;
    if (pacing.onRead(bytes, nowMs, lateMs) > 0) pauses += 1;
  }
  return pauses / reads;
}

test('never pauses where messages come slowly', () => {
  expect(pausedShare(230, 5)).toBe(0);
  expect(pausedShare(230, 50)).toBe(0);
});

test('pauses where small reads come fast, and longer where they come steadily', () => {
  expect(pausedShare(230, 0.02)).toBeGreaterThan(0.9);
  expect(pausedShare(230, 1)).toBeGreaterThan(0.9);
  const pauseAfter = (everyMs: number): number => {
    const pacing = adaptiveReadPacing();
    for (let nowMs = 0; nowMs < 100; nowMs += everyMs) pacing.onRead(230, nowMs, 0);
    return pacing.onRead(230, 100, 0);
  };
  expect([pauseAfter(0.02), pauseAfter(1), pauseAfter(5)]).toEqual([1, 2, 0]);
});

test('goes on pausing while the pauses make reads larger', () => {
  expect(pausedShare(10_000, 1.1)).toBeGreaterThan(0.9);
});

test('never pauses after large reads: bytes gather by themselves', () => {
  expect(pausedShare(65_536, 0.5)).toBe(0);
});

test('a single burst after a quiet time is not paced into the next one', () => {
  const pacing = adaptiveReadPacing();
  for (let nowMs = 0; nowMs < 5; nowMs++) pacing.onRead(4_000, nowMs, 0);
  expect(pacing.onRead(230, 500, 0)).toBe(0);
});

test('pauses for a tenth of what the stream is late by, up to 15 ms, however slowly it comes', () => {
  const pacing = adaptiveReadPacing();
  expect([0, 49, 50, 100, 150, 3_600_000].map((lateMs, n) => pacing.onRead(230, n * 1_000, lateMs))).toEqual([
    0, 0, 5, 10, 15, 15,
  ]);
});

test('does not pause after a full read, however late the stream is: there is more', () => {
  expect(pausedShare(65_536, 0.5, 10_000)).toBe(0);
  expect(pausedShare(65_535, 0.5, 10_000)).toBe(1);
});
