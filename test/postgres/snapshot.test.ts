import fc from 'fast-check';
import { expect, test } from 'vitest';
import { emptySnapshot, Snapshot } from '../../src/postgres/snapshot.ts';

const snapshot = fc.tuple(fc.nat(2 ** 40), fc.nat(1000), fc.uniqueArray(fc.nat(999))).map(([xmin, span, offsets]) => {
  const inProgress = offsets.filter((offset) => offset < span).sort((a, b) => a - b);
  return new Snapshot(
    xmin,
    xmin + span,
    inProgress.map((offset) => xmin + offset),
  );
});

test('survives its text form', () => {
  fc.assert(
    fc.property(snapshot, (made) => {
      expect(Snapshot.parse(made.toString())).toEqual(made);
    }),
  );
});

test('sees what had ended: below xmax and not in progress', () => {
  const made = Snapshot.parse('10:20:10,14,15');
  expect([9, 10, 11, 14, 15, 19, 20, 21].filter((xid) => made.sees(xid))).toEqual([9, 11, 19]);
  expect(Snapshot.parse('7:7:').sees(6)).toBe(true);
});

test('the empty one sees nothing', () => {
  expect(emptySnapshot().sees(1)).toBe(false);
  expect(emptySnapshot().sees(2 ** 33)).toBe(false);
});

test.each(['', '1:2', '1:2:3,', 'a:b:c', '1:2:,3'])('%j is not a snapshot', (text) => {
  expect(() => Snapshot.parse(text)).toThrow('Not a snapshot');
});
