import { expect, it } from 'vitest';
import { keyHash, partitionAmong } from '../../src/broker/partitioner.ts';
import { addedAmong, heldUp } from '../../src/consumer/added-partitions.ts';
import type { CursorRow } from '../../src/consumer/sync-plan.ts';

const row = (partition: number, opensAfter: bigint[] | null): CursorRow => ({
  topic: 't',
  partition,
  nextOffset: 0n,
  epoch: 0n,
  generation: 1,
  owner: null,
  wanted: null,
  opensAfter,
});

it('a partition that was added waits for the blocked keys that moved to it, and for no others', () => {
  const rows = [row(0, null), row(1, null), row(2, [5n, 5n]), row(3, [5n, 5n, 5n]), row(4, [5n, 5n, 5n])];
  const added = addedAmong(rows);
  expect(added.map(({ partition }) => partition)).toEqual([2, 3, 4]);
  const keys = Array.from({ length: 200 }, (_, at) => `key ${at}`);
  for (const key of keys) {
    const goesTo = partitionAmong(keyHash(key), [2, 3, 5]);
    const waiting = heldUp(added, rows, [{ topic: 't', partition: 1, key }]);
    expect(waiting.map(({ partition }) => partition)).toEqual(goesTo >= 2 ? [goesTo] : []);
    expect(heldUp(added, rows, [{ topic: 't', partition: goesTo, key }])).toEqual([]);
    expect(heldUp(added, rows, [{ topic: 'other', partition: 1, key }])).toEqual([]);
  }
});
