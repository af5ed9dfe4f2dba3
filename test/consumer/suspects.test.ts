import { expect, it } from 'vitest';
import { SuspectGate } from '../../src/consumer/suspect-gate.ts';
import { Suspects } from '../../src/consumer/suspects.ts';

it('suspects the first of each lane below what the former owner had reached', () => {
  const suspects = new Suspects(10n, 1);
  expect([suspects.has(9n, 'a'), suspects.has(10n, 'a')]).toEqual([true, false]);
  suspects.clear('a');
  expect([suspects.has(9n, 'a'), suspects.has(9n, 'b')]).toEqual([false, true]);
});

it('suspects as many of those without a lane as may have run at once', () => {
  const suspects = new Suspects(10n, 2);
  suspects.clear(undefined);
  expect(suspects.has(1n, undefined)).toBe(true);
  suspects.clear(undefined);
  expect([suspects.has(1n, undefined), suspects.has(1n, 'a')]).toEqual([false, true]);
});

it('suspects nothing after a handover in good order', () => {
  expect(new Suspects(0n, 1).has(0n, 'a')).toBe(false);
});

it('lets suspects run one at a time, in turns', () => {
  const gate = new SuspectGate<string>();
  expect([gate.admit('a'), gate.admit('b'), gate.admit('c'), gate.admit('a')]).toEqual([true, false, false, true]);
  gate.leave('b'); // is not the one
  expect(gate.next()).toBeUndefined();
  gate.leave('a');
  expect([gate.next(), gate.next(), gate.next()]).toEqual(['b', 'c', undefined]);
  expect([gate.admit('c'), gate.admit('b')]).toEqual([true, false]);
});

it('names one that waits when the one that ran is gone, and those between them', () => {
  const gate = new SuspectGate<string>();
  for (const unit of ['x1', 'x2', 'y1', 'x3']) gate.admit(unit);
  expect(gate.next()).toBeUndefined();
  gate.drop((unit) => unit.startsWith('x'));
  expect([gate.next(), gate.next()]).toEqual(['y1', undefined]);
});
