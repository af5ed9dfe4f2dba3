import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ParkedKeys } from '../../src/consumer/parked-keys.ts';

describe('ParkedKeys', () => {
  it('blocks a key from its first row on until a look finds none', () => {
    const keys = new ParkedKeys();
    keys.block('a');
    expect([keys.isBlocked('a'), keys.isBlocked('b'), keys.isBlocked(null)]).toEqual([true, false, false]);
    expect(keys.look('a')).toBe(true);
    expect(keys.settle('a', 'later')).toBe(false);
    expect(keys.isBlocked('a')).toBe(true);
    expect(keys.look('a')).toBe(true);
    expect(keys.settle('a', 'handled')).toBe(true);
    expect(keys.settle('a', 'none')).toBe(false);
    expect(keys.isBlocked('a')).toBe(false);
  });

  it('looks again where something has changed since a look began', () => {
    const keys = new ParkedKeys();
    keys.look('a');
    expect(keys.look('a')).toBe(false);
    expect(keys.settle('a', 'none')).toBe(true);
    expect(keys.isBlocked('a')).toBe(true);
    expect(keys.settle('a', 'none')).toBe(false);
  });

  it('looks at what is ready, and at what it believed to be there', () => {
    const keys = new ParkedKeys();
    keys.block('gone');
    expect(keys.isLoaded).toBe(false);
    const heads = [
      { key: 'ready', isReady: true },
      { key: 'later', isReady: false },
    ];
    expect(keys.load(heads)).toEqual(['ready', 'gone']);
    expect(keys.isLoaded).toBe(true);
    expect(keys.isBlocked('later')).toBe(true);
  });

  it('has a row that blocks nobody in hand once', () => {
    const keys = new ParkedKeys();
    expect([keys.takeAlone(1n), keys.takeAlone(1n)]).toEqual([true, false]);
    keys.leaveAlone(1n);
    expect(keys.takeAlone(1n)).toBe(true);
  });
});

interface Running {
  readonly what: number | 'look';
  /** The first row when it began. */
  readonly sees: number | undefined;
  readonly isDue: boolean;
  readonly linesUp: boolean;
}

/** One key of a partition, its lane, its rows and its owners, one step at a time. */
class Model {
  readonly handled: number[] = [];
  readonly #records: number;
  /** Fails so many more attempts. */
  readonly #faults: Map<number, number>;
  /** Rows of the table: offset to whether its time has come. */
  rows = new Map<number, boolean>();
  /** Messages with a row in processed_message. */
  readonly #claimed = new Set<number>();
  keys = new ParkedKeys();
  /** The next record to be read. */
  #next = 0;
  /** What waits in the lane: records, and looks. */
  #lane: (number | 'look')[] = [];
  /** What is under way in the lane: begun, and not ended. */
  #running: Running | undefined;

  constructor(records: number, faults: readonly (readonly [number, number])[]) {
    this.#records = records;
    this.#faults = new Map(faults);
    this.load();
  }

  get isDone(): boolean {
    return this.handled.length === this.#records;
  }

  /** A new owner, which reads again from some place that is not beyond what is finished. */
  crash(back: number): void {
    this.keys = new ParkedKeys();
    this.#lane = [];
    this.#running = undefined;
    const unfinished = Array.from({ length: this.#records }, (_, at) => at).find((at) => !this.#claimed.has(at));
    this.#next = Math.max(0, Math.min(this.#next, unfinished ?? this.#records) - back);
    this.load();
  }

  load(): void {
    const [first] = this.#heads();
    this.#look(this.keys.load(first === undefined ? [] : [{ key: 'k', isReady: this.rows.get(first) === true }]));
  }

  fetch(): void {
    if (this.#next < this.#records) this.#lane.push(this.#next++);
  }

  /** Time passes: what waits is due. */
  tick(): void {
    for (const offset of this.rows.keys()) this.rows.set(offset, true);
    if (this.rows.size > 0) this.#look(['k']);
  }

  /** Begins what is first in the lane, or ends what was begun. */
  step(): void {
    if (this.#running === undefined) this.#begin();
    else this.#end(this.#running);
  }

  #begin(): void {
    const what = this.#lane.shift();
    if (what === undefined) return;
    const [sees] = this.#heads();
    const isDue = sees !== undefined && this.rows.get(sees) === true;
    this.#running = { what, sees, isDue, linesUp: this.keys.isBlocked('k') };
  }

  #end({ what, sees, isDue, linesUp }: Running): void {
    this.#running = undefined;
    if (what !== 'look') {
      this.#endRecord(what, linesUp);
      return;
    }
    if (sees === undefined || !isDue) {
      if (this.keys.settle('k', sees === undefined ? 'none' : 'later')) this.#lane.unshift('look');
      return;
    }
    if (this.#fails(sees)) this.rows.set(sees, false);
    else {
      this.rows.delete(sees);
      this.handled.push(sees);
    }
    if (this.keys.settle('k', 'handled')) this.#lane.unshift('look');
  }

  #endRecord(offset: number, linesUp: boolean): void {
    if (this.#claimed.has(offset)) return;
    const fails = !linesUp && this.#fails(offset);
    this.#claimed.add(offset);
    if (!linesUp && !fails) {
      this.handled.push(offset);
      return;
    }
    this.rows.set(offset, linesUp);
    this.keys.block('k');
  }

  #fails(offset: number): boolean {
    const left = this.#faults.get(offset) ?? 0;
    this.#faults.set(offset, left - 1);
    return left > 0;
  }

  #heads(): number[] {
    return [...this.rows.keys()].sort((a, b) => a - b);
  }

  #look(keys: readonly string[]): void {
    for (const key of keys) if (this.keys.look(key)) this.#lane.unshift('look');
  }
}

describe('a key whose records fail, under owners that come and go', () => {
  it('has each of its records handled once, in order', () => {
    const action = fc.oneof(
      { weight: 6, arbitrary: fc.constant({ do: 'step' as const }) },
      { weight: 3, arbitrary: fc.constant({ do: 'fetch' as const }) },
      { weight: 2, arbitrary: fc.constant({ do: 'tick' as const }) },
      { weight: 1, arbitrary: fc.constant({ do: 'load' as const }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const), back: fc.nat(5) }) },
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.array(fc.tuple(fc.nat(11), fc.integer({ min: 1, max: 3 })), { maxLength: 4 }),
        fc.array(action, { maxLength: 120 }),
        (records, faults, actions) => {
          const model = new Model(records, faults);
          for (const each of actions) {
            if (each.do === 'crash') model.crash(each.back);
            else model[each.do]();
            expect(model.handled).toEqual(model.handled.map((_, at) => at));
          }
          for (let round = 0; round < 500 && !model.isDone; round += 1) {
            model.fetch();
            model.tick();
            for (let step = 0; step < 4; step += 1) model.step();
          }
          expect(model.handled).toEqual(Array.from({ length: records }, (_, at) => at));
          expect(model.rows.size).toBe(0);
        },
      ),
      { numRuns: 500 },
    );
  });
});
