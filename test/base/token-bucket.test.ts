import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TokenBucket } from '../../src/base/token-bucket.ts';

describe('a token bucket', () => {
  it('begins full, and gains with time up to its burst', () => {
    const bucket = new TokenBucket({ ratePerSecond: 2, burst: 3 }, 1_000);
    expect([bucket.take(3, 1_000), bucket.take(1, 1_000)]).toEqual([true, false]);
    expect(bucket.waitMs(1, 1_000)).toBe(500);
    expect([bucket.take(1, 1_499), bucket.take(1, 1_500)]).toEqual([false, true]);
    expect(bucket.available(60_000)).toBe(3);
    expect(bucket.waitMs(4, 60_000)).toBe(Infinity);
  });

  it('gains nothing from a clock that goes back', () => {
    const bucket = new TokenBucket({ ratePerSecond: 1_000, burst: 1 }, 1_000);
    expect(bucket.take(1, 1_000)).toBe(true);
    expect([bucket.available(0), bucket.available(1_000)]).toEqual([0, 0]);
  });

  it('never gives more than burst + rate * t within any time t', () => {
    const steps = fc.array(fc.record({ waitMs: fc.nat({ max: 2_000 }), count: fc.integer({ min: 1, max: 5 }) }));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 10 }), steps, (rate, burst, asked) => {
        const bucket = new TokenBucket({ ratePerSecond: rate, burst }, 0);
        let now = 0;
        const taken: [at: number, count: number][] = [];
        for (const { waitMs, count } of asked) {
          now += waitMs;
          if (bucket.take(count, now)) taken.push([now, count]);
        }
        for (const [from] of taken) {
          let sum = 0;
          for (const [at, count] of taken) {
            if (at < from) continue;
            sum += count;
            expect(sum).toBeLessThanOrEqual(burst + (rate * (at - from)) / 1_000 + 1e-6);
          }
        }
      }),
    );
  });
});
