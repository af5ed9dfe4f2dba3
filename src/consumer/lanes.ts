/** What a lane hands out at once: one item, or several that may be handled together. */
export interface Unit<Item> {
  readonly items: readonly Item[];
  /** Failed attempts so far. Whoever runs the unit counts. */
  failures: number;
  /** Attempts since then that came to nothing by nobody's fault. */
  stalls: number;
}

/** How items are spread over lanes. `Group` is what can be dropped as a whole, such as a partition. */
export interface LaneRules<Item, Group> {
  /** The most units that may run at once. */
  readonly concurrency: number;
  group(item: Item): Group;
  /** Items of a group with equal lanes run one after another. `undefined`: the item needs to wait for no other. */
  lane(item: Item): string | undefined;
  /** Whether `next` may join a unit of which `last` is the last item and that holds `size` items. */
  joins(last: Item, next: Item, size: number): boolean;
}

type LaneState = 'idle' | 'ready' | 'running' | 'held' | 'dropped';

interface Lane<Item, Group> {
  readonly group: Group;
  readonly key: string | symbol;
  state: LaneState;
  items: Item[];
  /** A unit that is to be handed out again as it is, before anything else. */
  again: Unit<Item> | undefined;
}

/**
 * Decides what may run now: items of one lane strictly in the order they came, different lanes side by side, never more
 * than `concurrency` units at once, the lane that has waited longest first. What has run already and failed comes before
 * what has not: behind all that was read ahead, a retry or a dead letter would be late by as much. A unit that is held (until a
 * retry is due) blocks its lane but leaves its place to others.
 *
 * A lane is `idle → ready → running → ready | idle`, or `running → held → ready`; any of them can be `dropped`.
 */
export class Lanes<Item, Group> {
  readonly #rules: LaneRules<Item, Group>;
  readonly #groups = new Map<Group, Map<string | symbol, Lane<Item, Group>>>();
  readonly #lanes = new Map<Unit<Item>, Lane<Item, Group>>();
  #ready: Lane<Item, Group>[] = [];
  /** Ready too, and first: what they begin with has failed before. */
  #urgent: Lane<Item, Group>[] = [];
  #running = 0;
  /** Units handed out that leave their place to others. */
  readonly #leaving = new Set<Unit<Item>>();

  constructor(rules: LaneRules<Item, Group>) {
    this.#rules = rules;
  }

  /** Units handed out and not given back. */
  get running(): number {
    return this.#running;
  }

  /** Puts an item at the end of its lane. */
  add(item: Item): void {
    const lane = this.#laneOf(item);
    lane.items.push(item);
    if (lane.state === 'idle') this.#makeReady(lane);
  }

  /** Puts an item at the front of its lane: it runs before what waits there. */
  addFirst(item: Item): void {
    const lane = this.#laneOf(item);
    lane.items.unshift(item);
    if (lane.state === 'idle') this.#makeReady(lane);
  }

  /**
   * The next unit to run, if there is one and a place for it. To be given back by one of `finish`, `hold`, `replace` and
   * `split`.
   */
  take(): Unit<Item> | undefined {
    if (this.#running - this.#leaving.size >= this.#rules.concurrency) return undefined;
    for (let lane = this.#nextReady(); lane !== undefined; lane = this.#nextReady()) {
      if (lane.state !== 'ready') continue;
      lane.state = 'running';
      this.#running += 1;
      const unit = lane.again ?? this.#nextUnit(lane);
      lane.again = undefined;
      this.#lanes.set(unit, lane);
      return unit;
    }
    return undefined;
  }

  /** The unit is nearly done with: another lane may begin in its place. It is still to be given back. */
  leave(unit: Unit<Item>): void {
    if (this.#lanes.has(unit)) this.#leaving.add(unit);
  }

  /** The unit is done with; its lane goes on. */
  finish(unit: Unit<Item>): void {
    this.#goOn(this.#giveBack(unit));
  }

  /** The unit is to run again, but not before `resume`. Its lane waits; its place is free. */
  hold(unit: Unit<Item>): void {
    const lane = this.#giveBack(unit);
    if (lane.state === 'dropped') return;
    lane.state = 'held';
    lane.again = unit;
    this.#lanes.set(unit, lane);
  }

  /** A held unit may run again. Does nothing for one that was dropped. */
  resume(unit: Unit<Item>): void {
    const lane = this.#lanes.get(unit);
    if (lane?.state === 'held' && lane.again === unit) {
      this.#lanes.delete(unit);
      // What has only been held up, by nobody's fault, gets in line: so do probes, which are to go round the lanes.
      this.#makeReady(lane, unit.failures > 0 && unit.stalls === 0);
    }
  }

  /** The unit is done with, and others of its lane are to run before what stands behind it. */
  replace(unit: Unit<Item>, items: readonly Item[]): void {
    const lane = this.#giveBack(unit);
    if (lane.state === 'dropped') return;
    lane.items.unshift(...items);
    this.#goOn(lane, items.length > 0);
  }

  /** The unit's items are to run again one unit at a time, as `joins` now decides, before what stands behind them. */
  split(unit: Unit<Item>): void {
    this.replace(unit, unit.items);
  }

  /** Forgets everything of a group that is not running. What runs is still to be given back. Returns what it forgot. */
  drop(group: Group): Item[] {
    const forgotten: Item[] = [];
    for (const lane of this.#groups.get(group)?.values() ?? []) {
      forgotten.push(...(lane.again?.items ?? []), ...lane.items);
      if (lane.again !== undefined) this.#lanes.delete(lane.again);
      lane.state = 'dropped';
      lane.again = undefined;
      lane.items = [];
    }
    this.#groups.delete(group);
    return forgotten;
  }

  #laneOf(item: Item): Lane<Item, Group> {
    const group = this.#rules.group(item);
    const name = this.#rules.lane(item);
    const lanes = this.#groups.get(group) ?? new Map<string | symbol, Lane<Item, Group>>();
    this.#groups.set(group, lanes);
    const key = name ?? Symbol('lane of its own');
    const existing = lanes.get(key);
    if (existing !== undefined) return existing;
    const lane: Lane<Item, Group> = { group, key, state: 'idle', items: [], again: undefined };
    lanes.set(key, lane);
    return lane;
  }

  #nextUnit(lane: Lane<Item, Group>): Unit<Item> {
    const end = lane.items.findIndex((item, at) => {
      const last = lane.items[at - 1];
      return last !== undefined && !this.#rules.joins(last, item, at);
    });
    return { items: lane.items.splice(0, end === -1 ? lane.items.length : end), failures: 0, stalls: 0 };
  }

  #giveBack(unit: Unit<Item>): Lane<Item, Group> {
    const lane = this.#lanes.get(unit);
    if (lane === undefined || lane.state === 'held') throw new Error('This unit was not handed out');
    this.#lanes.delete(unit);
    this.#leaving.delete(unit);
    this.#running -= 1;
    return lane;
  }

  #goOn(lane: Lane<Item, Group>, isUrgent = false): void {
    if (lane.state === 'dropped') return;
    if (lane.items.length > 0) {
      this.#makeReady(lane, isUrgent);
      return;
    }
    const lanes = this.#groups.get(lane.group);
    lanes?.delete(lane.key);
    if (lanes?.size === 0) this.#groups.delete(lane.group);
  }

  #makeReady(lane: Lane<Item, Group>, isUrgent = false): void {
    lane.state = 'ready';
    (isUrgent ? this.#urgent : this.#ready).push(lane);
  }

  #nextReady(): Lane<Item, Group> | undefined {
    return this.#urgent.shift() ?? this.#ready.shift();
  }
}
