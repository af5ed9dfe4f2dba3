import type { LogRecord } from '../broker/record.ts';
import type { Allowance } from './allowance.ts';
import { isLook, type LaneItem } from './delivery.ts';
import type { Unit } from './lanes.ts';
import type { RateLimitSettings } from './options.ts';

/** One limit for one thing: the consumer, a topic, or a key. */
interface Bucket {
  readonly allowance: Allowance;
  /** Units that came too early, the first to go first. Their lanes wait. */
  queue: Unit<LaneItem>[];
  /** Units that were let go and have not come back for their tokens: as many as there were tokens for. */
  readonly released: Set<Unit<LaneItem>>;
  isWaiting: boolean;
}

/** Makes the allowance of a limit; `name` tells it from the other buckets of the group. */
export type AllowanceMaker = (limit: RateLimitSettings, name: string) => Allowance;

/** Buckets of keys are looked through whenever they have doubled: a full one says no more than none. */
const FIRST_SWEEP_AT = 1_000;

/**
 * Lets units pass as their limits allow, or not yet: such a unit waits in the line of the first bucket that is short, and
 * takes nothing from the others meanwhile. Tokens are taken when a unit runs, so no limit is exceeded by those that wait.
 */
export class RateLimits {
  readonly #limits: readonly RateLimitSettings[];
  readonly #make: AllowanceMaker;
  readonly #resume: (units: readonly Unit<LaneItem>[]) => void;
  readonly #buckets = new Map<string, Bucket>();
  #sweepAt = FIRST_SWEEP_AT;

  /** `resume` is called with units that are to come again. */
  constructor(
    limits: readonly RateLimitSettings[],
    make: AllowanceMaker,
    resume: (units: readonly Unit<LaneItem>[]) => void,
  ) {
    this.#limits = limits;
    this.#make = make;
    this.#resume = resume;
  }

  /** Units that wait. */
  get waiting(): number {
    let waiting = 0;
    for (const { queue } of this.#buckets.values()) waiting += queue.length;
    return waiting;
  }

  /** Whether a unit may run now: it has its tokens then. Else it is resumed later. */
  admit(unit: Unit<LaneItem>): boolean {
    if (this.#limits.length === 0) return true;
    const costs = this.#costsOf(unit);
    if (!isHandled(unit)) {
      for (const bucket of costs.keys()) if (bucket.released.delete(unit)) this.#letGo(bucket);
      return true;
    }
    const isAdmitted = this.#passes(unit, costs);
    if (isAdmitted) for (const [bucket, count] of costs) bucket.allowance.take(count);
    for (const bucket of costs.keys()) this.#letGo(bucket);
    return isAdmitted;
  }

  /** Forgets units that will not run. */
  drop(isDropped: (unit: Unit<LaneItem>) => boolean): void {
    for (const bucket of this.#buckets.values()) {
      bucket.queue = bucket.queue.filter((unit) => !isDropped(unit));
      for (const unit of bucket.released) if (isDropped(unit)) bucket.released.delete(unit);
      this.#letGo(bucket);
    }
  }

  /** Lets nothing go any more. */
  stop(): void {
    for (const { allowance } of this.#buckets.values()) allowance.stop();
  }

  /** Whether no bucket is short; else the unit stands in line. */
  #passes(unit: Unit<LaneItem>, costs: ReadonlyMap<Bucket, number>): boolean {
    const letGo = [...costs.keys()].find(({ released }) => released.delete(unit));
    for (const [bucket, count] of costs) {
      const isNext = bucket === letGo || (bucket.queue.length === 0 && bucket.released.size === 0);
      if (isNext && bucket.allowance.has(count)) continue;
      if (bucket === letGo) bucket.queue.unshift(unit);
      else bucket.queue.push(unit);
      return false;
    }
    return true;
  }

  /** Lets those go for whom there are tokens, once all that were let go before have come for theirs. */
  #letGo(bucket: Bucket): void {
    if (bucket.isWaiting || bucket.released.size > 0 || bucket.queue.length === 0) return;
    let cost = 0;
    for (const unit of bucket.queue) {
      cost += this.#costsOf(unit).get(bucket) ?? 0;
      if (!bucket.allowance.has(cost)) break;
      bucket.released.add(unit);
    }
    if (bucket.released.size === 0) this.#wait(bucket);
    else this.#resume(bucket.queue.splice(0, bucket.released.size));
  }

  #wait(bucket: Bucket): void {
    const [first] = bucket.queue;
    if (first === undefined) return;
    bucket.isWaiting = true;
    bucket.allowance.wait(this.#costsOf(first).get(bucket) ?? 1, bucket.queue.length, () => {
      bucket.isWaiting = false;
      this.#letGo(bucket);
    });
  }

  #costsOf(unit: Unit<LaneItem>): ReadonlyMap<Bucket, number> {
    const costs = new Map<Bucket, number>();
    for (const item of unit.items) {
      if (isLook(item)) continue;
      const { record } = item;
      for (const [at, limit] of this.#limits.entries()) {
        const name = nameOf(limit, at, record);
        if (name === undefined) continue;
        const bucket = this.#bucketOf(limit, name);
        costs.set(bucket, (costs.get(bucket) ?? 0) + 1);
      }
    }
    return costs;
  }

  #bucketOf(limit: RateLimitSettings, name: string): Bucket {
    const existing = this.#buckets.get(name);
    if (existing !== undefined) return existing;
    if (this.#buckets.size >= this.#sweepAt) this.#sweep();
    const bucket = { allowance: this.#make(limit, name), queue: [], released: new Set<never>(), isWaiting: false };
    this.#buckets.set(name, bucket);
    return bucket;
  }

  #sweep(): void {
    for (const [name, { allowance, queue, released, isWaiting }] of this.#buckets) {
      const isIdle = queue.length === 0 && released.size === 0 && !isWaiting;
      if (isIdle && allowance.isUnused) this.#buckets.delete(name);
    }
    this.#sweepAt = Math.max(FIRST_SWEEP_AT, 2 * this.#buckets.size);
  }
}

/** Whether a handler is to be called; what is set aside, or only looked at, costs nothing. */
function isHandled({ items: [first] }: Unit<LaneItem>): boolean {
  return first !== undefined && !isLook(first) && first.task.todo === 'handle';
}

/** The bucket that a record needs a token of; `undefined`: none. */
function nameOf({ per }: RateLimitSettings, at: number, { topic, key }: LogRecord): string | undefined {
  switch (per) {
    case 'consumer':
      return `${at} consumer`;
    case 'topic':
      return `${at} topic ${topic}`;
    case 'key':
      return key === null ? undefined : `${at} key ${topic} ${key}`;
  }
}

/** The most records that may be in one unit, so that no limit can never let it pass. */
export function largestUnit(limits: readonly RateLimitSettings[]): number {
  return Math.min(
    Number.POSITIVE_INFINITY,
    ...limits.map(({ burst, shared }) => (shared ? Math.floor(burst / 2) : burst)),
  );
}
