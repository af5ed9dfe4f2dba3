import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Lanes, type LaneRules, type Unit } from '../../src/consumer/lanes.ts';

interface Item {
  readonly partition: string;
  readonly key: string | undefined;
  readonly n: number;
}

const rules = (changes: Partial<LaneRules<Item, string>> = {}): LaneRules<Item, string> => ({
  concurrency: 8,
  group: (item) => item.partition,
  lane: (item) => item.key,
  joins: () => false,
  ...changes,
});

const item = (n: number, key: string | undefined = 'k', partition = 'p'): Item => ({ partition, key, n });
const numbers = (unit: Unit<Item> | undefined): number[] => (unit?.items ?? []).map(({ n }) => n);

function taken<T>(unit: Unit<T> | undefined): Unit<T> {
  if (unit === undefined) throw new Error('nothing to take');
  return unit;
}

describe('Lanes', () => {
  it('hands out one item of a key at a time, and other keys beside it', () => {
    const lanes = new Lanes(rules());
    for (const each of [item(1, 'a'), item(2, 'a'), item(3, 'b')]) lanes.add(each);
    const first = taken(lanes.take());
    expect(numbers(first)).toEqual([1]);
    expect(numbers(lanes.take())).toEqual([3]);
    expect(lanes.take()).toBeUndefined();
    lanes.finish(first);
    expect(numbers(lanes.take())).toEqual([2]);
  });

  it('gives the place of a unit that is leaving to another lane, never to its own, until it is given back', () => {
    const lanes = new Lanes(rules({ concurrency: 1 }));
    for (const each of [item(1, 'a'), item(2, 'a'), item(3, 'b'), item(4, 'c')]) lanes.add(each);
    const first = taken(lanes.take());
    expect(lanes.take()).toBeUndefined();
    lanes.leave(first);
    lanes.leave(first); // once more changes nothing
    const second = taken(lanes.take());
    expect([numbers(second), lanes.running]).toEqual([[3], 2]);
    expect(lanes.take()).toBeUndefined();
    lanes.finish(first);
    lanes.leave(first); // given back already
    expect([lanes.take(), lanes.running]).toEqual([undefined, 1]);
    lanes.finish(second);
    expect(numbers(lanes.take())).toEqual([4]);
  });

  it('does not mix up equal keys of two groups', () => {
    const lanes = new Lanes(rules());
    lanes.add(item(1, 'a', 'p'));
    lanes.add(item(2, 'a', 'q'));
    expect([numbers(lanes.take()), numbers(lanes.take())]).toEqual([[1], [2]]);
  });

  it('lets items without a lane run side by side', () => {
    const lanes = new Lanes(rules());
    for (const n of [1, 2, 3]) lanes.add({ partition: 'p', key: undefined, n });
    expect([lanes.take(), lanes.take(), lanes.take()].map(numbers)).toEqual([[1], [2], [3]]);
  });

  it('never runs more units than its concurrency', () => {
    const lanes = new Lanes(rules({ concurrency: 2 }));
    for (const n of [1, 2, 3]) lanes.add(item(n, `key ${n}`));
    const first = taken(lanes.take());
    lanes.take();
    expect(lanes.take()).toBeUndefined();
    lanes.finish(first);
    expect(numbers(lanes.take())).toEqual([3]);
  });

  it('keeps a held unit before the rest of its lane and lends its place to others', () => {
    const lanes = new Lanes(rules({ concurrency: 1 }));
    for (const each of [item(1, 'a'), item(2, 'a'), item(3, 'b')]) lanes.add(each);
    const held = taken(lanes.take());
    held.failures = 1;
    lanes.hold(held);
    const other = taken(lanes.take());
    expect(numbers(other)).toEqual([3]);
    lanes.finish(other);
    expect(lanes.take()).toBeUndefined();
    lanes.resume(held);
    expect(lanes.take()).toBe(held);
    lanes.finish(held);
    expect(numbers(lanes.take())).toEqual([2]);
  });

  it.each([
    ['a retry', 1, 0, 'first'],
    ['what was held up by nobody’s fault', 0, 0, 'last'],
    ['a probe that failed', 1, 1, 'last'],
  ])('%s comes before or behind what was read ahead, as it should', (_what, failures, stalls, place) => {
    const lanes = new Lanes(rules({ concurrency: 1 }));
    for (const key of ['a', 'b', 'c']) lanes.add({ partition: 'p', key, n: 1 });
    const unit = lanes.take()!;
    Object.assign(unit, { failures, stalls });
    lanes.hold(unit);
    lanes.resume(unit);
    const order: (string | undefined)[] = [];
    for (let next = lanes.take(); next !== undefined; next = lanes.take()) {
      order.push(...next.items.map(({ key }) => key));
      lanes.finish(next);
    }
    expect(order).toEqual(place === 'first' ? ['a', 'b', 'c'] : ['b', 'c', 'a']);
  });

  it('what takes the place of a unit comes before what was read ahead, and what stands behind it does not', () => {
    const lanes = new Lanes(rules({ concurrency: 1 }));
    for (const [key, n] of [
      ['a', 1],
      ['b', 1],
      ['a', 2],
    ] as const)
      lanes.add({ partition: 'p', key, n });
    const unit = lanes.take()!;
    lanes.split(unit);
    const order: string[] = [];
    for (let next = lanes.take(); next !== undefined; next = lanes.take()) {
      order.push(...next.items.map(({ key, n }) => `${key}${n}`));
      lanes.finish(next);
    }
    expect(order).toEqual(['a1', 'b1', 'a2']);
  });

  it('makes one unit of neighbours that may be joined, and splits it again', () => {
    const alone = new Set<number>();
    const lanes = new Lanes(
      rules({ joins: (last, next, size) => size < 3 && !alone.has(last.n) && !alone.has(next.n) }),
    );
    for (const n of [1, 2, 3, 4]) lanes.add(item(n));
    const unit = taken(lanes.take());
    expect(numbers(unit)).toEqual([1, 2, 3]);
    for (const { n } of unit.items) alone.add(n);
    lanes.split(unit);
    const order = [1, 2, 3, 4].map(() => {
      const next = taken(lanes.take());
      lanes.finish(next);
      return numbers(next);
    });
    expect(order).toEqual([[1], [2], [3], [4]]);
  });

  it('forgets what a dropped group has waiting and held, and still counts what runs', () => {
    const lanes = new Lanes(rules());
    for (const each of [item(1, 'a'), item(2, 'a'), item(3, 'b'), item(4, 'c', 'other')]) lanes.add(each);
    const running = taken(lanes.take());
    const held = taken(lanes.take());
    lanes.hold(held);
    expect(
      lanes
        .drop('p')
        .map(({ n }) => n)
        .sort(),
    ).toEqual([2, 3]);
    lanes.resume(held);
    expect(lanes.running).toBe(1);
    expect(numbers(lanes.take())).toEqual([4]);
    lanes.finish(running);
    expect(lanes.running).toBe(1);
    expect(lanes.take()).toBeUndefined();
  });

  it('refuses a unit that is given back twice', () => {
    const lanes = new Lanes(rules());
    lanes.add(item(1));
    const unit = taken(lanes.take());
    lanes.finish(unit);
    expect(() => lanes.finish(unit)).toThrow();
  });

  it('keeps the order of every key and its bound under any mix of finishing, holding and resuming', () => {
    const keys = fc.array(fc.tuple(fc.constantFrom('p', 'q'), fc.constantFrom('a', 'b', 'c')), { maxLength: 60 });
    const moves = fc.infiniteStream(fc.record({ pick: fc.nat(), hold: fc.boolean(), takeMore: fc.boolean() }));
    fc.assert(
      fc.property(
        keys,
        moves,
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 3 }),
        (input, choices, concurrency, most) => {
          const lanes = new Lanes(rules({ concurrency, joins: (_last, _next, size) => size < most }));
          const running: Unit<Item>[] = [];
          const held: Unit<Item>[] = [];
          const seen: Item[] = [];
          input.forEach(([partition, key], n) => lanes.add(item(n, key, partition)));
          for (const { pick, hold, takeMore } of choices) {
            const unit = takeMore || running.length === 0 ? lanes.take() : undefined;
            if (unit !== undefined) {
              expect(unit.items.length).toBeLessThanOrEqual(most);
              running.push(unit);
            }
            expect(lanes.running).toBe(running.length);
            expect(running.length).toBeLessThanOrEqual(concurrency);
            const busy = running.map(({ items }) => `${items[0]?.partition}${items[0]?.key}`);
            expect(new Set(busy).size).toBe(busy.length);
            const [back] = running.splice(pick % Math.max(1, running.length), 1);
            if (back !== undefined && hold && back.failures < 2) {
              back.failures += 1;
              lanes.hold(back);
              held.push(back);
            } else if (back !== undefined) {
              seen.push(...back.items);
              lanes.finish(back);
            } else if (held.length > 0) {
              held.splice(0).forEach((each) => lanes.resume(each));
            } else if (unit === undefined && !takeMore) {
              break;
            }
          }
          expect(seen).toHaveLength(input.length);
          for (const lane of ['pa', 'pb', 'pc', 'qa', 'qb', 'qc']) {
            const order = seen.filter(({ partition, key }) => `${partition}${key}` === lane).map(({ n }) => n);
            expect(order).toEqual([...order].sort((a, b) => a - b));
          }
        },
      ),
    );
  });
});
