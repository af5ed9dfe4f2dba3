import { expect, it } from 'vitest';
import { Suspects } from '../../src/consumer/suspects.ts';

it('suspects the first of each lane below what the former owner had reached, and all that have none', () => {
  const suspects = new Suspects(10n);
  expect([suspects.has(9n, 'a'), suspects.has(10n, 'a'), suspects.has(3n, undefined)]).toEqual([true, false, true]);
  suspects.clear('a');
  suspects.clear(undefined);
  expect([suspects.has(9n, 'a'), suspects.has(9n, 'b'), suspects.has(4n, undefined)]).toEqual([false, true, true]);
});

it('suspects as many of a lane as a batch may hold', () => {
  const suspects = new Suspects(10n);
  suspects.clear('serial');
  expect([suspects.has(1n, 'serial', 2), suspects.has(1n, 'serial', 1)]).toEqual([true, false]);
});

it('suspects nothing after a handover in good order', () => {
  expect(new Suspects(0n).has(0n, 'a')).toBe(false);
});
