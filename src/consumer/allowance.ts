import { TokenBucket, type BucketRules } from '../base/token-bucket.ts';

/** What one limit lets pass. */
export interface Allowance {
  /** Whether so many may pass now. */
  has(count: number): boolean;
  /** Lets so many pass, of which {@link has} was just true. */
  take(count: number): void;
  /** Calls `onMore` when it is worth looking again whether `count` may pass, while `waiting` want to. One call at a time. */
  wait(count: number, waiting: number, onMore: () => void): void;
  /** Forgets the call that is due. */
  stop(): void;
  /** Whether it is as if it had never been used. */
  readonly isUnused: boolean;
}

/** The limit of this process alone. */
export class LocalAllowance implements Allowance {
  readonly #bucket: TokenBucket;
  readonly #burst: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(rules: BucketRules) {
    this.#bucket = new TokenBucket(rules, performance.now());
    this.#burst = rules.burst;
  }

  get isUnused(): boolean {
    return this.#bucket.available(performance.now()) >= this.#burst;
  }

  has(count: number): boolean {
    return this.#bucket.available(performance.now()) >= count;
  }

  take(count: number): void {
    this.#bucket.take(count, performance.now());
  }

  wait(count: number, _waiting: number, onMore: () => void): void {
    const waitMs = this.#bucket.waitMs(count, performance.now());
    if (Number.isFinite(waitMs)) this.#timer = setTimeout(onMore, Math.min(waitMs, LONGEST_TIMER_MS));
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/** A timer takes 31 bits. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Takes tokens from a bucket that several processes share: `wanted` of them, or fewer, or none if there are not `least`. */
export type TokenSource = (least: number, wanted: number) => Promise<number>;

/**
 * What the shared bucket of a limit may hold, and how long tokens from it may be used. Tokens used within any `t` seconds
 * were taken within `t` seconds and this time before. So a bucket that is smaller by what is gained in this time keeps the
 * limit: `capacity + rate * (t + ttl) = burst + rate * t`.
 */
export function sharedBucket({ ratePerSecond, burst }: BucketRules): {
  readonly capacity: number;
  readonly ttlMs: number;
} {
  return { capacity: burst / 2, ttlMs: (burst / 2 / ratePerSecond) * 1_000 };
}

/** How long to wait after the source has failed. */
const RETRY_MS = 1_000;
/** To ask for at least, so that places of handlers do not stand empty. */
const LEAST_CHUNK = 8;

/** This process's part of a limit that several share: tokens taken in chunks, to be used for a short while. */
export class SharedAllowance implements Allowance {
  readonly isUnused = false;
  readonly #rate: number;
  readonly #capacity: number;
  readonly #ttlMs: number;
  readonly #source: TokenSource;
  readonly #now: () => number;
  #grants: { tokens: number; readonly until: number }[] = [];
  #usedSinceAsked = 0;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  /** `now` is monotonic, in milliseconds. */
  constructor(rules: BucketRules, source: TokenSource, now: () => number = () => performance.now()) {
    const { capacity, ttlMs } = sharedBucket(rules);
    this.#rate = rules.ratePerSecond;
    this.#capacity = capacity;
    this.#ttlMs = ttlMs;
    this.#source = source;
    this.#now = now;
  }

  has(count: number): boolean {
    const now = this.#now();
    this.#grants = this.#grants.filter(({ until }) => now < until);
    return this.#grants.reduce((sum, { tokens }) => sum + tokens, 0) >= count;
  }

  take(count: number): void {
    this.#usedSinceAsked += count;
    for (const grant of this.#grants) {
      const used = Math.min(count, grant.tokens);
      grant.tokens -= used;
      count -= used;
    }
  }

  wait(count: number, waiting: number, onMore: () => void): void {
    const most = Math.max(count, LEAST_CHUNK, 2 * this.#usedSinceAsked); // more than are used would be lost to others
    const wanted = Math.min(Math.max(count, waiting), most, Math.floor(this.#capacity));
    void this.ask(count, wanted).then((waitMs) => {
      if (this.#isStopped) return;
      if (waitMs === 0) onMore();
      else this.#timer = setTimeout(onMore, waitMs);
    });
  }

  /** Asks the source. Returns how long to wait before asking again: 0 if it gave some. Never throws. */
  async ask(least: number, wanted: number, random: number = Math.random()): Promise<number> {
    const askedAt = this.#now();
    this.#usedSinceAsked = 0;
    try {
      const tokens = await this.#source(least, wanted);
      if (tokens > 0) this.#grants.push({ tokens, until: askedAt + this.#ttlMs });
      if (tokens >= least) return 0;
      // Half of them have come after half of the time: few statements, and an equal chance for each process.
      return Math.ceil((Math.max(least, wanted / 2) / this.#rate) * 1_000 * (0.5 + random));
    } catch {
      return RETRY_MS;
    }
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }
}
