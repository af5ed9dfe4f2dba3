import { describe, expect, it } from 'vitest';
import { countBehind } from '../../src/testing/groups.ts';

const at = (topic: string, partition: number, nextOffset: bigint) => ({ topic, partition, nextOffset });

describe('how far a group is behind', () => {
  it.each([
    ['nothing is in the log', [], [], 0],
    ['it has no place yet', [at('a', 0, 3n)], [], 3],
    ['it is at the end', [at('a', 0, 3n)], [at('a', 0, 3n)], 0],
    ['it is further', [at('a', 0, 3n)], [at('a', 0, 9n)], 0],
    ['it is further elsewhere', [at('a', 0, 3n), at('a', 1, 3n)], [at('a', 0, 9n)], 3],
    ['a topic has the same partitions', [at('a', 0, 3n)], [at('b', 0, 3n)], 3],
    ['several places are known', [at('a', 0, 9n)], [at('a', 0, 2n), at('a', 0, 5n), at('a', 0, 4n)], 4],
    ['it lacks something in two partitions', [at('a', 0, 9n), at('a', 1, 9n)], [at('a', 0, 8n), at('a', 1, 7n)], 3],
  ])('where %s', (_what, ends, places, expected) => {
    expect(countBehind(ends, places)).toBe(expected);
  });
});
