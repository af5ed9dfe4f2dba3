import { describe, expect, test } from 'vitest';
import { partOf } from './cpu.ts';
import { interleave } from './interleave.ts';
import { quantile, row } from './report.ts';

const figure = { suite: 's', workload: 'w', figure: 'f', unit: '×', details: {} };

describe('a row', () => {
  test('is the median of its samples, with the lowest and the highest', () => {
    const { value, spread } = row({ ...figure, bar: { atLeast: 1 }, samples: [9, 1, 3] });
    expect({ value, spread }).toEqual({ value: 3, spread: [1, 9] });
  });

  test.each([
    [{ atLeast: 2 }, [2], true],
    [{ atLeast: 2 }, [1.9], false],
    [{ atMost: 2 }, [2], true],
    [{ atMost: 2 }, [2.1], false],
    [{ atMost: 2 }, [NaN], false],
    [{ atLeast: 2 }, [], false],
  ])('with the bar %j and the samples %j is ok: %s', (bar, samples, ok) => {
    expect(row({ ...figure, bar, samples }).ok).toBe(ok);
  });

  test('takes the nearest rank for a quantile', () => {
    const hundred = Array.from({ length: 100 }, (_, n) => n + 1);
    expect([quantile(hundred, 0.5), quantile(hundred, 0.99), quantile(hundred, 1)]).toEqual([50, 99, 100]);
  });
});

describe('interleave', () => {
  test('measures each contender once a round, and another one first in each', async () => {
    const order: string[] = [];
    const contender = (name: string) => (): Promise<string> => {
      order.push(name);
      return Promise.resolve(name);
    };
    const { rounds, repeated } = await interleave({ rounds: 2, say: () => undefined }, 'test', {
      a: contender('a'),
      b: contender('b'),
      c: contender('c'),
    });
    expect(rounds).toEqual([
      { a: 'a', b: 'b', c: 'c' },
      { a: 'a', b: 'b', c: 'c' },
    ]);
    expect(order).toHaveLength(3 * (2 + repeated));
    expect(order.slice(0, 6)).toEqual(['a', 'b', 'c', 'b', 'c', 'a']);
  });
});

describe('the part of the server that a process is', () => {
  test.each([
    ['postgres: walsender postgres bench 127.0.0.1(4711) START_REPLICATION', 'walsender'],
    ['postgres: postgres bench_relay 127.0.0.1(4711) idle', 'backends'],
    ['postgres: checkpointer ', 'background'],
    ['postgres: io worker 0', 'background'],
    ['postgres: autovacuum worker bench', 'background'],
  ])('%s: %s', (title, part) => {
    expect(partOf(title)).toBe(part);
  });
});
