import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { describeWalBudget, walBudgetUse, walHolder, type SlotWal } from '../../src/source/wal/wal-budget.ts';

const MIB = 1024 ** 2;
const HOUR_MS = 3_600_000;

describe('the use of a WAL budget', () => {
  test.each([
    [0, 'low'],
    [49, 'low'],
    [50, 'half'],
    [79, 'half'],
    [80, 'most'],
    [99, 'most'],
    [100, 'full'],
    [130, 'full'],
  ])('at %i %% is %s', (percent, level) => {
    expect(walBudgetUse([{ atMs: 0, retainedBytes: percent * MIB }], 100 * MIB)).toMatchObject({
      level,
      share: percent / 100,
    });
  });

  test('is forecast from its pace', () => {
    const samples = [0, 1, 2].map((n) => ({ atMs: n * HOUR_MS, retainedBytes: (40 + n * 10) * MIB }));
    expect(walBudgetUse(samples, 100 * MIB).fullInMs).toBeCloseTo(4 * HOUR_MS);
  });

  test('is not forecast from one sample, nor where it shrinks', () => {
    const at = (atMs: number, mib: number) => ({ atMs, retainedBytes: mib * MIB });
    expect(walBudgetUse([], MIB)).toMatchObject({ share: 0, fullInMs: undefined });
    expect(walBudgetUse([at(0, 60)], 100 * MIB).fullInMs).toBeUndefined();
    expect(walBudgetUse([at(5, 60), at(5, 60)], 100 * MIB).fullInMs).toBeUndefined();
    expect(walBudgetUse([at(0, 60), at(1, 50)], 100 * MIB).fullInMs).toBeUndefined();
    expect(walBudgetUse([at(0, 60), at(1, 100)], 100 * MIB).fullInMs).toBe(0);
  });

  test('is never negative or no number, whatever the samples', () => {
    const sample = fc.record({ atMs: fc.nat(), retainedBytes: fc.nat() });
    fc.assert(
      fc.property(fc.array(sample), fc.nat(), (samples, budget) => {
        const { fullInMs, share } = walBudgetUse(samples, budget);
        expect(share).toBeGreaterThanOrEqual(0);
        if (fullInMs !== undefined) expect(fullInMs).toBeGreaterThanOrEqual(0);
      }),
    );
  });
});

describe('who holds WAL back', () => {
  const slot: SlotWal = { retainedBytes: 0, unconfirmedBytes: 0, isActive: true, oldestTransaction: undefined };
  const transaction = { name: 'process 4711 (psql)', openSeconds: 3 * 3600 };
  test.each<[string, Partial<SlotWal>]>([
    ['the slot itself: nobody reads it', { isActive: false, oldestTransaction: transaction }],
    ['the relay, which is 80 MiB behind', { retainedBytes: 90 * MIB, unconfirmedBytes: 80 * MIB }],
    [
      'the write transaction of process 4711 (psql), open for 3 h',
      { retainedBytes: 90 * MIB, unconfirmedBytes: MIB, oldestTransaction: transaction },
    ],
    ['the server, until its next checkpoint', { retainedBytes: 90 * MIB, unconfirmedBytes: MIB }],
  ])('%s', (holder, facts) => {
    expect(walHolder({ ...slot, ...facts })).toBe(holder);
  });
});

test('one sentence says it all', () => {
  const samples = [0, 1, 2].map((n) => ({ atMs: n * HOUR_MS, retainedBytes: (256 + n * 128) * MIB }));
  const use = walBudgetUse(samples, 1024 * MIB);
  expect(describeWalBudget('shop', use, 'the slot itself')).toBe(
    'the slot shop holds back 512 MiB of WAL, 50 % of its budget of 1 GiB: held by the slot itself; full in about 4 h',
  );
});
