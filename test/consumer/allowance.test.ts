import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TokenBucket } from '../../src/base/token-bucket.ts';
import { SharedAllowance, sharedBucket } from '../../src/consumer/allowance.ts';

describe('a shared allowance', () => {
  it('uses what it was given, for as long as that holds, counted from before it asked', async () => {
    let now = 0;
    const allowance = new SharedAllowance(
      { ratePerSecond: 10, burst: 20 },
      () => {
        now += 400; // the answer takes a while
        return Promise.resolve(5);
      },
      () => now,
    );
    expect(allowance.has(1)).toBe(false);
    expect(await allowance.ask(1, 5)).toBe(0);
    expect([allowance.has(5), allowance.has(6)]).toEqual([true, false]);
    allowance.take(2);
    now = 999;
    expect([allowance.has(3), allowance.has(4)]).toEqual([true, false]);
    now = 1_000;
    expect(allowance.has(1)).toBe(false);
  });

  it('asks again later where there is nothing, or the source fails', async () => {
    const rules = { ratePerSecond: 10, burst: 20 };
    const empty = new SharedAllowance(rules, () => Promise.resolve(0));
    expect(await empty.ask(1, 10, 0.5)).toBe(500); // half of them have come by then
    const broken = new SharedAllowance(rules, () => Promise.reject(new Error('no connection')));
    expect(await broken.ask(1, 10)).toBeGreaterThan(0);
  });

  it('keeps the limit over all processes, whenever they use what they took', async () => {
    const step = fc.record({
      process: fc.nat({ max: 2 }),
      waitMs: fc.nat({ max: 700 }),
      answerMs: fc.nat({ max: 50 }),
      use: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 2, max: 30 }),
        fc.array(step, { maxLength: 60 }),
        async (ratePerSecond, burst, steps) => {
          let now = 0;
          const rules = { ratePerSecond, burst };
          const bucket = new TokenBucket({ ratePerSecond, burst: sharedBucket(rules).capacity }, now);
          let answerMs = 0;
          const source = (least: number, wanted: number): Promise<number> => {
            now += answerMs; // the row is counted at some time between question and answer
            const granted = Math.min(wanted, Math.floor(bucket.available(now)));
            const given = granted >= least && bucket.take(granted, now) ? granted : 0;
            now += answerMs;
            return Promise.resolve(given);
          };
          const processes = [0, 1, 2].map(() => new SharedAllowance(rules, source, () => now));
          const used: number[] = [];
          for (const { process, waitMs, use, ...each } of steps) {
            now += waitMs;
            answerMs = each.answerMs;
            const allowance = processes[process];
            if (!use) await allowance?.ask(1, 100);
            else
              while (allowance?.has(1) === true) {
                allowance.take(1);
                used.push(now);
              }
          }
          for (const [first, from] of used.entries()) {
            for (const [last, to] of used.entries()) {
              if (last < first) continue;
              expect(last - first + 1).toBeLessThanOrEqual(burst + (ratePerSecond * (to - from)) / 1_000 + 1e-6);
            }
          }
        },
      ),
    );
  });
});
