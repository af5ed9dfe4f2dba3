import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  coverSpan,
  isPassDue,
  isWorthRewriting,
  LastOffsets,
  stays,
  type CompactionState,
  type KeyedRecord,
} from '../../../src/broker/postgres/maintenance/compaction-plan.ts';
import { stretches } from '../../../src/broker/postgres/maintenance/packing.ts';

/** A history: what each record has, in the order of the offsets. */
const history = fc
  .array(fc.record({ key: fc.constantFrom(null, '', 'a', 'b', 'c', 'ä'), isMarker: fc.boolean() }), { maxLength: 60 })
  .map((records) => records.map((record, n): KeyedRecord => ({ ...record, offset: BigInt(n) })));

/** The last record of each key, by offset. */
function lastOfEach(records: readonly KeyedRecord[]): Map<string, KeyedRecord> {
  return new Map(records.flatMap((record) => (record.key === null ? [] : [[record.key, record] as const])));
}

/** One pass: the keys of what was never compacted, up to `to`, decide about everything below. */
function pass(records: readonly KeyedRecord[], cleanTo: bigint, to: bigint, markersBelow: bigint): KeyedRecord[] {
  const last = new LastOffsets();
  for (const record of records) if (record.offset >= cleanTo && record.offset < to) last.add(record);
  return records.filter((record) => record.offset >= to || stays(record, last, markersBelow));
}

describe('passes', () => {
  it('leave what has no key and the last of each key, at any time, and below their end nothing else', () => {
    fc.assert(
      fc.property(history, fc.array(fc.bigInt(0n, 25n), { maxLength: 8 }), (records, steps) => {
        let [left, cleanTo] = [records, 0n];
        for (const step of steps) {
          const to = cleanTo + step;
          left = pass(left, cleanTo, to, 0n);
          cleanTo = to;
          const inside = left.filter(({ offset }) => offset < cleanTo);
          const last = lastOfEach(records.filter(({ offset }) => offset < cleanTo));
          expect(inside).toEqual(
            records.filter((one) => one.offset < cleanTo && (one.key === null || last.get(one.key) === one)),
          );
          expect(left.slice(inside.length)).toEqual(records.filter(({ offset }) => offset >= cleanTo));
        }
      }),
    );
  });

  it('remove delete markers of former passes without bringing anything back', () => {
    fc.assert(
      fc.property(history, fc.array(fc.tuple(fc.bigInt(0n, 25n), fc.boolean())), (records, steps) => {
        let [left, cleanTo, markersBelow] = [records, 0n, 0n];
        for (const [step, isDue] of steps) {
          left = pass(left, cleanTo, cleanTo + step, isDue ? markersBelow : 0n);
          cleanTo += step;
          markersBelow = cleanTo;
          const last = lastOfEach(records);
          for (const record of last.values()) expect(left.includes(record) || record.isMarker).toBe(true);
          for (const [key, record] of last)
            if (!left.includes(record)) expect(left.filter((one) => one.key === key)).toEqual([]);
        }
      }),
    );
  });
});

describe('a pass is due', () => {
  const state: CompactionState = {
    ...{ start: 0n, limit: 100n, cleanTo: 100n, kept: 40 },
    ...{ hasDueMarkers: false, hasWaited: false },
  };
  it.each<[string, Partial<CompactionState>, boolean]>([
    ['never where nothing is new', { hasWaited: true }, false],
    ['at first', { cleanTo: 0n, kept: 0 }, true],
    ['not while most of it is clean', { limit: 139n }, false],
    ['once half of it is new', { limit: 140n }, true],
    ['once something has waited', { limit: 101n, hasWaited: true }, true],
    ['for delete markers alone', { hasDueMarkers: true }, true],
    ['with what retention has left', { start: 90n, limit: 110n }, true],
    ['not with what retention has left in the new part', { start: 110n, limit: 110n }, false],
    ['before there is anything', { limit: 0n, cleanTo: 0n, kept: 0, hasWaited: true }, false],
  ])('%s', (_what, more, expected) => {
    expect(isPassDue({ ...state, ...more })).toBe(expected);
  });
});

describe('what is written anew', () => {
  it('has the offsets that it had, with and without records', () => {
    const offsetsOf = fc.uniqueArray(fc.bigInt(10n, 200n)).map((all) => all.sort((a, b) => (a < b ? -1 : 1)));
    fc.assert(
      fc.property(offsetsOf, fc.integer({ min: 1, max: 7 }), (offsets, records) => {
        const counts = stretches(
          offsets.map(() => 1),
          { records, bytes: 1_000 },
        );
        const groups = coverSpan({ base: 10n, end: 201n }, offsets, counts);
        let [next, at] = [10n, 0];
        for (const { base, count, records: held } of groups) {
          expect(base).toBe(next);
          expect(count).toBeGreaterThan(0n);
          for (const offset of offsets.slice(at, at + held)) expect(offset >= base && offset < base + count).toBe(true);
          next = base + count;
          at += held;
        }
        expect([next, at]).toEqual([201n, offsets.length]);
      }),
    );
  });

  it.each<[string, boolean[], number, number, boolean]>([
    ['what lost a record', [false], 1, 1, true],
    ['what lost all', [true], 3, 0, true],
    ['not what lost none', [false, false, false], 0, 1, false],
    ['not a few packed entries', [true, true, true], 0, 2, false],
    ['many small packed entries', [true, true, true, true], 0, 2, true],
    ['not one without records', [true], 0, 0, false],
    ['two without records', [true, true], 0, 0, true],
  ])('%s', (_what, packed, removed, needed, expected) => {
    const entries = packed.map((isPacked) => ({ isPacked }));
    expect(isWorthRewriting(entries, removed, needed)).toBe(expected);
  });
});
