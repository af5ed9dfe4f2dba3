import { expect, it } from 'vitest';
import { KnownEnds } from '../../../src/broker/postgres/known-ends.ts';

const HERE = { systemIdentifier: '1', timeline: 1 };

function known({ pollMs = 60_000 } = {}) {
  const news = new Map<number, number>();
  const heard = {
    isListening: true,
    newsOf: (partition: number) => news.get(partition) ?? 0,
    pollDelayMs: () => pollMs,
  };
  const tell = (partition: number): void => void news.set(partition, heard.newsOf(partition) + 1);
  return { ends: new KnownEnds(heard), heard, tell };
}

it('knows where partitions were seen to end, and of others nothing', () => {
  const { ends } = known();
  ends.look([1, 2], HERE)([{ id: 1, offset: 7n }]);
  expect(ends.standing({ id: 1, offset: 7n }, HERE)).toBe('ended');
  expect(ends.standing({ id: 1, offset: 6n }, HERE)).toBe('unknown');
  expect(ends.standing({ id: 2, offset: 0n }, HERE)).toBe('unknown');
});

it('knows what is said to have grown, also while somebody looks', () => {
  const { ends, tell } = known();
  const found = ends.look([1, 2], HERE);
  tell(1);
  found([
    { id: 1, offset: 7n },
    { id: 2, offset: 3n },
  ]);
  expect(ends.standing({ id: 1, offset: 7n }, HERE)).toBe('told');
  expect(ends.standing({ id: 2, offset: 3n }, HERE)).toBe('ended');
  tell(2);
  expect(ends.standing({ id: 2, offset: 3n }, HERE)).toBe('told');
});

it('trusts it no longer than a fetch waits before it looks by itself, nor where nothing is heard, nor on another cluster', () => {
  const brief = known({ pollMs: 0 });
  brief.ends.look([1], HERE)([{ id: 1, offset: 7n }]);
  expect(brief.ends.standing({ id: 1, offset: 7n }, HERE)).toBe('due');
  const { ends, heard } = known();
  ends.look([1], HERE)([{ id: 1, offset: 7n }]);
  expect(ends.standing({ id: 1, offset: 7n }, { ...HERE, timeline: 2 })).toBe('unknown');
  heard.isListening = false;
  expect(ends.standing({ id: 1, offset: 7n }, HERE)).toBe('unknown');
});

it('gives up what it was not asked about for long', () => {
  const { ends } = known({ pollMs: -2_000 });
  ends.look([1], HERE)([{ id: 1, offset: 7n }]);
  expect(ends.standing({ id: 1, offset: 7n }, HERE)).toBe('unknown');
});
