import { expect, test } from 'vitest';
import { adaptiveReadPacing } from '../../src/source/wal/read-pacing.ts';

/** Feeds reads of `bytes` every `everyMs` for a second; answers the share after which a pause was asked for. */
function pausedShare(bytes: number, everyMs: number): number {
  const pacing = adaptiveReadPacing();
  let reads = 0;
  let pauses = 0;
  for (let nowMs = 0; nowMs < 1000; nowMs += everyMs) {
    reads += 1;
    if (pacing.onRead(bytes, nowMs)) pauses += 1;
  }
  return pauses / reads;
}

test('never pauses where messages come slowly', () => {
  expect(pausedShare(230, 2)).toBe(0);
  expect(pausedShare(230, 50)).toBe(0);
});

test('pauses where small reads come fast', () => {
  expect(pausedShare(230, 0.02)).toBeGreaterThan(0.9);
});

test('goes on pausing while the pauses make reads larger', () => {
  expect(pausedShare(10_000, 1.1)).toBeGreaterThan(0.9);
});

test('never pauses after large reads: bytes gather by themselves', () => {
  expect(pausedShare(65_536, 0.5)).toBe(0);
});

test('a single burst after a quiet time is not paced into the next one', () => {
  const pacing = adaptiveReadPacing();
  for (let nowMs = 0; nowMs < 5; nowMs++) pacing.onRead(4_000, nowMs);
  expect(pacing.onRead(230, 500)).toBe(false);
});
