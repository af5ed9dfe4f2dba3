import { expect, it } from 'vitest';
import { requestOf } from './options.ts';

it('reads which log is meant', () => {
  expect(requestOf(['--log', 'memory', '--json'], 7)).toEqual({ run: { log: 'memory', json: true, seed: 7 } });
  expect(requestOf(['--log', 'postgres', '--seed', '3'], 7)).toEqual({
    run: { log: 'postgres', json: false, seed: 3 },
  });
});

it('says what is wrong with what it was told', () => {
  for (const [args, mistake] of [
    [[], /--log is missing/],
    [['--log', 'kafka'], /--log is kafka/],
    [['--log', 'memory', '--seed', 'x'], /--seed is x/],
    [['--logs', 'memory'], /--logs/],
  ] as const) {
    expect(requestOf(args, 7)).toEqual({ mistake: expect.stringMatching(mistake) as string });
  }
  expect(requestOf(['--help'], 7)).toHaveProperty('help');
});
