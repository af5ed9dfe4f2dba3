import { describe, expect, it } from 'vitest';
import { missingPlaces } from '../../src/consumer/start-positions.ts';

const starts = [
  { topic: 't', partition: 0, nextOffset: 7n },
  { topic: 't', partition: 1, nextOffset: 9n },
];

describe('missingPlaces', () => {
  it('begins in a topic that is new to the group where the group is to begin', () => {
    expect(missingPlaces([{ topic: 't', partitions: 2, starts }], [])).toEqual(starts);
  });

  it('adds partition 0 of a topic that does not exist, ahead of time', () => {
    expect(missingPlaces([{ topic: 't', partitions: 0, starts: undefined }], [])).toEqual([
      { topic: 't', partition: 0, nextOffset: 0n },
    ]);
  });

  it('reads a topic that has appeared since, and partitions that were added, from their first records', () => {
    const known = [{ topic: 't', partition: 0 }];
    expect(missingPlaces([{ topic: 't', partitions: 3, starts }], known)).toEqual([
      { topic: 't', partition: 1, nextOffset: 0n },
      { topic: 't', partition: 2, nextOffset: 0n },
    ]);
  });

  it('keeps partitions that were added closed until the others have come to where they ended then', () => {
    const opensAfter = new Map([[1, [7n]]]);
    expect(
      missingPlaces([{ topic: 't', partitions: 2, starts: undefined, opensAfter }], [{ topic: 't', partition: 0 }]),
    ).toEqual([{ topic: 't', partition: 1, nextOffset: 0n, opensAfter: [7n] }]);
    expect(missingPlaces([{ topic: 't', partitions: 2, starts, opensAfter }], [])).toEqual([
      starts[0],
      { ...starts[1], opensAfter: [7n] },
    ]);
  });

  it('adds nothing that the group knows, nor what it was not told where to begin', () => {
    const known = [{ topic: 't', partition: 0 }];
    expect(missingPlaces([{ topic: 't', partitions: 1, starts: undefined }], known)).toEqual([]);
    expect(missingPlaces([{ topic: 't', partitions: 1, starts: undefined }], [])).toEqual([]);
  });
});
