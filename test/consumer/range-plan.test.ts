import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LONGEST_RANGE, lowMarks, planWork, type RangeRow, type WorkView } from '../../src/consumer/range-plan.ts';

const member = (memberId: string, room: number, topics = ['t']): WorkView['members'][number] => ({
  memberId,
  room,
  topics,
});
const partition = (number: number, dealtTo: bigint, seenEnd: bigint, topic = 't'): WorkView['partitions'][number] => ({
  topic,
  partition: number,
  dealtTo,
  seenEnd,
});
const row = (
  lease: string,
  from: bigint,
  to: bigint,
  memberId: string | null,
  more: Partial<RangeRow> = {},
): RangeRow => ({
  lease,
  topic: 't',
  partition: 0,
  from,
  to,
  memberId,
  abandonments: 0,
  releasedBy: null,
  ...more,
});
const view = (given: Partial<WorkView>): WorkView => ({
  memberId: 'me',
  members: [member('me', 0)],
  partitions: [],
  ranges: [],
  held: new Set(),
  inHand: 0,
  room: 10,
  isNews: false,
  ...given,
});
const sizeOf = (ranges: readonly { readonly from: bigint; readonly to: bigint }[]): bigint =>
  ranges.reduce((sum, { from, to }) => sum + to - from, 0n);

describe('planWork', () => {
  it('takes no more than there is room for', () => {
    const plan = planWork(view({ partitions: [partition(0, 5n, 100n)], room: 7 }));
    expect(plan).toEqual({
      taken: [],
      dealt: [{ topic: 't', partition: 0, from: 5n, to: 12n }],
      left: 88,
      wake: [],
    });
  });

  it('spreads little work thinly over those with room, the emptiest hands first', () => {
    const members = [
      member('me', 10),
      member('idle', 10),
      member('full', 0),
      member('half', 10),
      member('deaf', 10, ['u']),
    ];
    const ranges = [row('h', 0n, 1n, 'half')];
    const plan = planWork(view({ members, ranges, partitions: [partition(0, 1n, 3n)], isNews: true }));
    expect(plan.dealt).toEqual([{ topic: 't', partition: 0, from: 1n, to: 2n }]);
    expect(plan).toMatchObject({ left: 1, wake: ['idle'] });
  });

  it('wakes nobody where others know already', () => {
    const members = [member('me', 10), member('idle', 10)];
    expect(planWork(view({ members, partitions: [partition(0, 0n, 9n)] })).wake).toEqual([]);
  });

  it('takes first what was given back, what dead members had, and what it had before it died', () => {
    const ranges = [
      row('mine', 0n, 2n, 'me'),
      row('dead', 2n, 4n, 'gone'),
      row('others', 4n, 6n, 'other'),
      row('free', 6n, 8n, null),
      row('before', 8n, 10n, 'me'),
    ];
    const members = [member('me', 0), member('other', 0)];
    const plan = planWork(
      view({ members, ranges, held: new Set(['mine']), inHand: 2, partitions: [partition(0, 10n, 50n)] }),
    );
    expect(plan.taken.map(({ row: { lease }, to }) => [lease, to])).toEqual([
      ['dead', 4n],
      ['free', 8n],
      ['before', 10n],
    ]);
    expect(plan.dealt).toEqual([{ topic: 't', partition: 0, from: 10n, to: 14n }]);
  });

  it('takes a part of a range that it has no room for', () => {
    const plan = planWork(view({ ranges: [row('free', 0n, 100n, null)], room: 3 }));
    expect(plan.taken).toMatchObject([{ row: { lease: 'free' }, to: 3n }]);
    expect(plan.left).toBe(97);
  });

  it('leaves what it has released itself to others that have room, and takes it where there are none', () => {
    const ranges = [row('free', 0n, 1n, null, { releasedBy: 'me' })];
    const withOther = (room: number): WorkView => view({ ranges, members: [member('me', 9), member('other', room)] });
    expect(planWork(withOther(1)).taken).toEqual([]);
    expect(planWork(withOther(0)).taken).toHaveLength(1);
  });

  it('gives each partition its turn', () => {
    const partitions = [partition(0, 0n, 1_000n), partition(1, 0n, 2n), partition(2, 0n, 1_000n)];
    const plan = planWork(view({ partitions }));
    expect(plan.dealt.map(({ partition: number, to }) => [number, to])).toEqual([
      [1, 2n],
      [0, 4n],
      [2, 4n],
    ]);
  });

  it('takes nothing of topics that it does not handle, and nothing once it leaves', () => {
    const partitions = [partition(0, 0n, 10n, 'u')];
    expect(planWork(view({ partitions })).dealt).toEqual([]);
    expect(planWork(view({ partitions, members: [] })).dealt).toEqual([]);
  });

  it('deals everything exactly once, within everybody’s room, until nothing is left', () => {
    const setting = fc.record({
      rooms: fc.array(fc.integer({ min: 1, max: 650 }), { minLength: 1, maxLength: 6 }),
      ends: fc.array(fc.integer({ min: 0, max: 900 }), { minLength: 1, maxLength: 4 }),
      turns: fc.array(fc.record({ who: fc.nat(), finishes: fc.integer({ min: 0, max: 100 }) }), { maxLength: 60 }),
    });
    fc.assert(
      fc.property(setting, ({ rooms, ends, turns }) => {
        let ranges: RangeRow[] = [];
        let partitions = ends.map((end, at) => partition(at, 0n, BigInt(end)));
        const finished = new Set<string>();
        const members = rooms.map((room, at) => member(`m${at}`, room));
        let leases = 0;
        const turn = (who: number, percent: number): void => {
          const memberId = `m${who}`;
          const mine = ranges.filter((one) => one.memberId === memberId);
          const done = mine.slice(0, Math.ceil((mine.length * percent) / 100));
          ranges = ranges.filter((one) => !done.includes(one));
          for (const { partition: number, from, to } of done) {
            for (let at = from; at < to; at += 1n) {
              expect(finished.has(`${number}/${at}`)).toBe(false);
              finished.add(`${number}/${at}`);
            }
          }
          const kept = mine.filter((one) => !done.includes(one));
          const inHand = Number(sizeOf(kept));
          const room = (rooms[who] ?? 0) - inHand;
          const plan = planWork({
            memberId,
            members,
            partitions,
            ranges,
            held: new Set(kept.map(({ lease }) => lease)),
            inHand,
            room,
            isNews: true,
          });
          expect(plan.taken).toEqual([]);
          expect(sizeOf(plan.dealt)).toBeLessThanOrEqual(BigInt(room));
          for (const { from, to } of plan.dealt) expect(to - from <= LONGEST_RANGE && to > from).toBe(true);
          for (const name of plan.wake) expect(name).not.toBe(memberId);
          for (const dealt of plan.dealt) {
            const of = partitions.find(({ partition: number }) => number === dealt.partition);
            expect(dealt.from).toBe(of?.dealtTo);
            partitions = partitions.map((one) => (one === of ? { ...one, dealtTo: dealt.to } : one));
            ranges = [...ranges, row(`l${leases++}`, dealt.from, dealt.to, memberId, { partition: dealt.partition })];
          }
          for (const [name, mark] of lowMarks(partitions, ranges)) {
            const number = Number(name.split('/')[1]);
            for (let at = 0n; at < mark; at += 97n) expect(finished.has(`${number}/${at}`)).toBe(true);
          }
        };
        for (const { who, finishes } of turns) turn(who % rooms.length, finishes);
        const total = ends.reduce((sum, end) => sum + end, 0);
        // Whoever is idle takes at least one record, so it comes to an end.
        for (let round = 0; finished.size < total; round++) {
          expect(round).toBeLessThan(10_000);
          rooms.forEach((_room, who) => turn(who, 100));
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe('lowMarks', () => {
  it('are the lowest open offsets, or how far a partition is dealt', () => {
    const marks = lowMarks(
      [partition(0, 10n, 20n), partition(1, 7n, 9n)],
      [row('a', 4n, 6n, null), row('b', 2n, 3n, 'me')],
    );
    expect([...marks]).toEqual([
      ['t/0', 2n],
      ['t/1', 7n],
    ]);
  });
});
