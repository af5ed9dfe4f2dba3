import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planFetch, type PrefetchPartition } from '../../src/consumer/prefetch.ts';

const partition = (number: number, records = 0, bytes = 0): PrefetchPartition => ({
  fetchPosition: { topic: 't', partition: number, offset: 0n },
  records,
  bytes,
});

describe('planFetch', () => {
  it('asks for nothing when there is nothing to ask for', () => {
    expect(planFetch([], { records: 10, bytes: 10 }, 0)).toBeUndefined();
  });

  it('passes over a partition that has used half of its share, by records or by bytes', () => {
    const all = [partition(0, 50), partition(1, 0, 500), partition(2, 49, 499)];
    const plan = planFetch(all, { records: 300, bytes: 3_000 }, 0);
    expect(plan).toEqual({
      partitions: [all[2]],
      maxRecords: 50,
      maxRecordsEach: 50,
      maxBytes: 500,
      maxWaitMs: 5_000,
    });
  });

  it('asks for half a share of each at once, with one half in hand for the other', () => {
    const all = [partition(0), partition(1, 31, 0), partition(2, 32, 0)];
    const plan = planFetch(all, { records: 189, bytes: 600 }, 0);
    expect(plan).toMatchObject({ partitions: [all[0], all[1]], maxRecords: 62, maxRecordsEach: 31, maxBytes: 200 });
  });

  it('lets large messages take the bytes that are left, and leaves half a share to every other partition', () => {
    const limits = { records: 300, bytes: 600 };
    const one = [partition(0, 1, 450), partition(1), partition(2)];
    expect(planFetch(one, limits, 0)).toMatchObject({ partitions: [one[1], one[2]], maxBytes: 150 });
    const two = [partition(0, 1, 450), partition(1, 1, 250), partition(2)];
    expect(planFetch(two, limits, 0)).toMatchObject({ partitions: [two[2]], maxBytes: 100 });
  });

  it('names another partition first each time', () => {
    const all = [partition(0), partition(1), partition(2)];
    const firsts = [0, 1, 2, 3].map((turn) => planFetch(all, { records: 30, bytes: 30 }, turn)?.partitions[0]);
    expect(firsts).toEqual([all[0], all[1], all[2], all[0]]);
  });

  it('keeps what is in memory within the limits, whether a fetch is filled from one partition or from all', () => {
    const arbitrary = [fc.integer({ min: 1, max: 20 }), fc.integer({ min: 40, max: 1_000 }), fc.boolean()] as const;
    fc.assert(
      fc.property(...arbitrary, (count, limit, isOne) => {
        const held = Array.from({ length: count }, () => 0);
        for (let turn = 0; turn < 200; turn += 1) {
          const all = held.map((records, at) => partition(at, records));
          const plan = planFetch(all, { records: limit, bytes: Number.MAX_SAFE_INTEGER }, turn);
          if (plan === undefined) break;
          for (const { fetchPosition } of isOne ? plan.partitions.slice(0, 1) : plan.partitions) {
            held[fetchPosition.partition] = (held[fetchPosition.partition] ?? 0) + plan.maxRecordsEach;
          }
        }
        expect(
          planFetch(
            held.map((records, at) => partition(at, records)),
            { records: limit, bytes: 1e9 },
            0,
          ),
        ).toBeUndefined();
        expect(held.reduce((sum, records) => sum + records, 0)).toBeLessThanOrEqual(limit + 2 * count);
      }),
    );
  });
});
