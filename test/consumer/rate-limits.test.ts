import { describe, expect, it } from 'vitest';
import type { Allowance } from '../../src/consumer/allowance.ts';
import type { LaneItem } from '../../src/consumer/delivery.ts';
import type { Unit } from '../../src/consumer/lanes.ts';
import type { RateLimitSettings } from '../../src/consumer/options.ts';
import { largestUnit, RateLimits } from '../../src/consumer/rate-limits.ts';

/** An allowance that is filled by hand. */
class Hand implements Allowance {
  tokens = 0;
  isUnused = false;
  onMore: (() => void) | undefined;

  has(count: number): boolean {
    return this.tokens >= count;
  }

  take(count: number): void {
    this.tokens -= count;
  }

  wait(_count: number, _waiting: number, onMore: () => void): void {
    expect(this.onMore).toBeUndefined(); // one at a time
    this.onMore = onMore;
  }

  stop(): void {
    this.onMore = undefined;
  }

  give(tokens: number): void {
    this.tokens += tokens;
    const { onMore } = this;
    this.onMore = undefined;
    onMore?.();
  }
}

function unit(n: number, { topic = 't', key = 'k' }: { topic?: string; key?: string | null } = {}): Unit<LaneItem> {
  const record = { topic, key, offset: BigInt(n) };
  return { items: [{ record, task: { todo: 'handle' } }] as unknown as LaneItem[], failures: 0, stalls: 0 };
}

function limitsOf(...pers: RateLimitSettings['per'][]) {
  const hands = new Map<string, Hand>();
  const resumed: Unit<LaneItem>[] = [];
  const settings = pers.map((per) => ({ per, rate: 1, burst: 10, shared: false }));
  const limits = new RateLimits(
    settings,
    (_limit, name) => {
      const hand = new Hand();
      hands.set(name, hand);
      return hand;
    },
    (units) => resumed.push(...units),
  );
  const hand = (name: string): Hand => {
    const found = hands.get(name);
    if (found === undefined) throw new Error(`There is no ${name} among ${[...hands.keys()].join(', ')}`);
    return found;
  };
  return { limits, hand, resumed: () => resumed.splice(0), names: () => [...hands.keys()] };
}

describe('RateLimits', () => {
  it('lets units wait in line, and go in the order they came, as many as there are tokens', () => {
    const { limits, hand, resumed } = limitsOf('consumer');
    const units = [1, 2, 3, 4].map((n) => unit(n));
    expect(units.map((each) => limits.admit(each))).toEqual([false, false, false, false]);
    expect(limits.waiting).toBe(4);
    hand('0 consumer').give(2);
    expect(resumed()).toEqual(units.slice(0, 2));
    const late = unit(5);
    expect(limits.admit(late)).toBe(false); // does not take what was given to others
    expect(units.slice(0, 2).map((each) => limits.admit(each))).toEqual([true, true]);
    expect(hand('0 consumer').tokens).toBe(0);
    hand('0 consumer').give(9);
    expect(resumed()).toEqual([...units.slice(2), late]);
  });

  it('gives each topic and each key its own, and messages without a key none', () => {
    const { limits, names } = limitsOf('topic', 'key');
    limits.admit(unit(1));
    limits.admit(unit(2, { topic: 'u' }));
    limits.admit(unit(3, { topic: 'u', key: null }));
    expect(names().sort()).toEqual(['0 topic t', '0 topic u', '1 key t k', '1 key u k']);
  });

  it('takes nothing from one bucket while another is short', () => {
    const { limits, hand, resumed } = limitsOf('consumer', 'key');
    const blocked = unit(1);
    limits.admit(blocked);
    hand('0 consumer').give(1);
    expect(resumed()).toEqual([blocked]);
    expect(limits.admit(blocked)).toBe(false); // now for its key
    expect(hand('0 consumer').tokens).toBe(1);
    const other = unit(2, { key: 'other' });
    expect(limits.admit(other)).toBe(false); // its key has none; nobody stands in line for the consumer's
    hand('1 key t other').give(1);
    expect(resumed()).toEqual([other]);
    expect(limits.admit(other)).toBe(true);
    expect(hand('0 consumer').tokens).toBe(0);
  });

  it('goes on with the next when those who were let go are dropped', () => {
    const { limits, hand, resumed } = limitsOf('consumer');
    const [first, second] = [unit(1), unit(2)];
    limits.admit(first);
    limits.admit(second);
    hand('0 consumer').give(1);
    expect(resumed()).toEqual([first]);
    limits.drop((each) => each === first);
    expect(resumed()).toEqual([second]);
    expect(limits.admit(second)).toBe(true);
  });

  it('counts each record of a batch', () => {
    const { limits, hand } = limitsOf('consumer');
    const batch = { ...unit(1), items: [...unit(1).items, ...unit(2).items] };
    limits.admit(batch);
    hand('0 consumer').give(1);
    expect(limits.admit(batch)).toBe(false);
  });

  it('forgets keys that are as if they had never been used', () => {
    const { limits, hand, names } = limitsOf('key');
    for (let n = 0; n < 1_000; n++) {
      limits.admit(unit(n, { key: String(n) }));
      const each = hand(`0 key t ${n}`);
      each.isUnused = n !== 7;
      limits.drop(() => true);
      each.give(1);
    }
    expect(names()).toHaveLength(1_000);
    limits.admit(unit(1_000, { key: 'more' }));
    const made = names().length;
    limits.admit(unit(1_001, { key: '7' }));
    expect(names()).toHaveLength(made); // kept
  });
});

describe('largestUnit', () => {
  it('is what the smallest bucket can ever let pass', () => {
    expect(largestUnit([])).toBe(Infinity);
    const limit = { per: 'topic', rate: 1, burst: 9, shared: false } as const;
    expect(largestUnit([limit])).toBe(9);
    expect(largestUnit([limit, { ...limit, shared: true }])).toBe(4);
  });
});
