import { describe, expect, it } from 'vitest';
import { Router } from '../../src/relay/router.ts';

const messages = (topics: readonly string[], keyHashes: readonly number[]) => ({
  ids: topics.map((_, n) => n + 1),
  topics,
  keyHashes,
});

describe('Router', () => {
  it('keeps the order within each partition, and a key in one partition', () => {
    const batch = messages(['a', 'b', 'a', 'a', 'b', 'a'], [0, 0, 1, 0, 1, 1]);
    const { appends, unroutable } = new Router().route(batch, () => [2]);
    expect(appends).toEqual([
      { topic: 'a', partition: 0, ids: [1, 4] },
      { topic: 'b', partition: 0, ids: [2] },
      { topic: 'a', partition: 1, ids: [3, 6] },
      { topic: 'b', partition: 1, ids: [5] },
    ]);
    expect(unroutable.size).toBe(0);
  });

  it('keeps messages without a key together, elsewhere with each batch', () => {
    const router = new Router();
    const batch = messages(['a', 'a', 'a'], [-1, -1, -1]);
    const partitions = [1, 2, 3, 4].map(() => router.route(batch, () => [3]).appends.map(({ partition }) => partition));
    expect(partitions).toEqual([[0], [1], [2], [0]]);
  });

  it('tells what has nowhere to go, by topic and in order, and routes the rest', () => {
    const batch = messages(['a', 'gone', 'a', 'lost', 'gone'], [-1, 0, -1, 1, 5]);
    const { appends, unroutable } = new Router().route(batch, (topic) => (topic === 'a' ? [1] : []));
    expect(appends).toEqual([{ topic: 'a', partition: 0, ids: [1, 3] }]);
    expect([...unroutable]).toEqual([
      ['gone', [2, 5]],
      ['lost', [4]],
    ]);
  });

  it('sends a key to a partition that was added, or where it went before', () => {
    const batch = messages(['a', 'a', 'a', 'a', 'a'], [0, 1, 2, 3, -1]);
    expect(new Router().route(batch, () => [2, 3]).appends).toEqual([
      { topic: 'a', partition: 0, ids: [1, 5] },
      { topic: 'a', partition: 1, ids: [2, 4] }, // 3 % 3 is no added partition, so 3 % 2
      { topic: 'a', partition: 2, ids: [3] },
    ]);
  });
});
