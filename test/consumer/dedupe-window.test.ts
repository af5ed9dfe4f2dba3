import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { backoffMs } from '../../src/base/backoff.ts';
import {
  defaultDedupeWindowMs,
  LEAST_DEFAULT_WINDOW_MS,
  LONGEST_WINDOW_MS,
  retryHorizonMs,
  type RetryRules,
} from '../../src/consumer/dedupe-window.ts';
import { NO_DELAYED_RETRIES } from '../../src/consumer/delayed-retries.ts';
import { tightened } from '../../src/consumer/processed-partitions.ts';

const rules = (changes: Partial<RetryRules> = {}): RetryRules => ({
  attempts: 1,
  backoff: {},
  delayed: NO_DELAYED_RETRIES,
  maxHandlerMs: false,
  leaseMs: 0,
  ...changes,
});

describe('retryHorizonMs', () => {
  it.each<[string, Partial<RetryRules>, number]>([
    ['nothing but the attempt', {}, 0],
    ['the lease and the handler', { leaseMs: 30, maxHandlerMs: 500 }, 530],
    ['attempts at once, each with its handler', { attempts: 3, maxHandlerMs: 10, backoff: { initialMs: 100 } }, 330],
    ['waits that have stopped growing', { attempts: 6, backoff: { initialMs: 100, maxMs: 200 } }, 900],
    ['a list of delays', { maxHandlerMs: 5, delayed: { delaysMs: [100, 1_000] } }, 1_115],
    ['delays that grow', { delayed: { attempts: 3, initialMs: 1_000, factor: 4 } }, 21_000],
    ['more attempts than can be counted one by one', { attempts: 2 ** 31 - 1 }, LONGEST_WINDOW_MS],
  ])('counts %s', (_, changes, expected) => {
    expect(retryHorizonMs(rules(changes))).toBe(expected);
  });

  it('is never shorter than the waits that are drawn', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 30 }),
        fc.record({
          initialMs: fc.integer({ min: 0, max: 1_000 }),
          maxMs: fc.integer({ min: 0, max: 5_000 }),
          factor: fc.integer({ min: 1, max: 5 }),
        }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (attempts, backoff, random) => {
          let waited = 0;
          for (let retry = 1; retry < attempts; retry += 1) waited += backoffMs(retry, backoff, random);
          expect(retryHorizonMs(rules({ attempts, backoff }))).toBeGreaterThanOrEqual(waited);
        },
      ),
    );
  });
});

it('a group that says nothing has seven days, or as long as its retries take', () => {
  expect(defaultDedupeWindowMs(rules())).toBe(LEAST_DEFAULT_WINDOW_MS);
  const delaysMs = Array.from({ length: 20 }, () => 86_400_000);
  expect(defaultDedupeWindowMs(rules({ delayed: { delaysMs } }))).toBe(20 * 86_400_000);
});

it('a hold reaches no further than the log, and what the log does not have holds nothing', () => {
  const hold = (topic: string, partition: number) => ({ topic, partition, nextOffset: 1n, untilOffset: 100n });
  const ends = new Map([
    [
      'a',
      [
        { partition: 0, start: 0n, end: 7n },
        { partition: 1, start: 0n, end: 700n },
      ],
    ],
  ]);
  expect(tightened([hold('a', 0), hold('a', 1), hold('a', 2), hold('b', 0)], ends)).toEqual([
    { ...hold('a', 0), untilOffset: 7n },
    { ...hold('a', 2), untilOffset: 0n },
    { ...hold('b', 0), untilOffset: 0n },
  ]);
});
