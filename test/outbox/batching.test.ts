import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nextBatch, type WaitingCall } from '../../src/outbox/batching.ts';

const limits = { lingerMs: 10, messages: 4, bytes: 100 };
const call = (count: number, bytes: number, sinceMs = 0): WaitingCall => ({ count, bytes, sinceMs });
const now = (nowMs: number, isUrgent = false) => ({ nowMs, isUrgent });

describe('nextBatch', () => {
  it.each([
    ['waits for others', [call(1, 1)], now(4), { waitMs: 6 }],
    ['waits from the first call on', [call(1, 1, 2), call(1, 1, 9)], now(9), { waitMs: 3 }],
    ['has waited long enough', [call(1, 1), call(1, 1, 9)], now(10), { calls: 2 }],
    ['has messages enough', [call(2, 1), call(2, 1)], now(0), { calls: 2 }],
    ['has bytes enough', [call(1, 60), call(1, 40)], now(0), { calls: 2 }],
    ['splits no call by its messages', [call(3, 1), call(2, 1)], now(0), { calls: 1 }],
    ['splits no call by its bytes', [call(1, 60), call(1, 41)], now(0), { calls: 1 }],
    ['takes a call that is larger than a batch', [call(9, 900), call(1, 1)], now(0), { calls: 1 }],
    ['lets nothing wait if it is urgent', [call(1, 1), call(1, 1)], now(0, true), { calls: 2 }],
    ['keeps its limits if it is urgent', [call(3, 1), call(2, 1)], now(0, true), { calls: 1 }],
  ])('%s', (_, waiting, at, expected) => {
    expect(nextBatch(waiting, limits, at)).toEqual(expected);
  });

  it('takes as many calls as fit, and never none', () => {
    const calls = fc.array(
      fc.record({ count: fc.integer({ min: 1, max: 6 }), bytes: fc.integer({ min: 1, max: 150 }) }),
      {
        minLength: 1,
      },
    );
    fc.assert(
      fc.property(calls, (given) => {
        const waiting = given.map(({ count, bytes }) => call(count, bytes));
        const next = nextBatch(waiting, limits, now(0, true));
        const taken = 'calls' in next ? next.calls : 0;
        expect(taken).toBeGreaterThan(0);
        expect(taken === 1 || fits(waiting.slice(0, taken))).toBe(true);
        expect(taken === waiting.length || isFull(waiting, taken)).toBe(true);
      }),
    );
  });
});

const sum = (numbers: number[]): number => numbers.reduce((total, number) => total + number, 0);
const messagesIn = (calls: readonly WaitingCall[]): number => sum(calls.map(({ count }) => count));
const bytesIn = (calls: readonly WaitingCall[]): number => sum(calls.map(({ bytes }) => bytes));

function fits(calls: readonly WaitingCall[]): boolean {
  return messagesIn(calls) <= limits.messages && bytesIn(calls) <= limits.bytes;
}

function isFull(waiting: readonly WaitingCall[], taken: number): boolean {
  const batch = waiting.slice(0, taken);
  const reached = messagesIn(batch) >= limits.messages || bytesIn(batch) >= limits.bytes;
  return reached || !fits(waiting.slice(0, taken + 1));
}
