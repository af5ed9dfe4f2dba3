/** How many may pass: `ratePerSecond` in the long run, `burst` at once after a pause. */
export interface BucketRules {
  /** More than 0; fractions are allowed. */
  readonly ratePerSecond: number;
  /** 1 or more. */
  readonly burst: number;
}

/**
 * A token bucket: it begins full with `burst` tokens and gains `ratePerSecond`. Within any `t` seconds at most
 * `burst + ratePerSecond * t` tokens are taken. The clock is handed in, in milliseconds; one that goes back gains nothing.
 *
 * @see https://en.wikipedia.org/wiki/Token_bucket
 */
export class TokenBucket {
  readonly #rules: BucketRules;
  #tokens: number;
  #at: number;

  constructor(rules: BucketRules, nowMs: number) {
    this.#rules = rules;
    this.#tokens = rules.burst;
    this.#at = nowMs;
  }

  /** How many tokens there are, with fractions. */
  available(nowMs: number): number {
    const { ratePerSecond, burst } = this.#rules;
    if (nowMs > this.#at) {
      this.#tokens = Math.min(burst, this.#tokens + ((nowMs - this.#at) / 1_000) * ratePerSecond);
      this.#at = nowMs;
    }
    return this.#tokens;
  }

  /** Takes tokens if there are enough; else none. */
  take(count: number, nowMs: number): boolean {
    if (this.available(nowMs) < count) return false;
    this.#tokens -= count;
    return true;
  }

  /** How long until there are so many tokens, if nobody takes any; infinite for more than `burst`. Whole milliseconds. */
  waitMs(count: number, nowMs: number): number {
    const { ratePerSecond, burst } = this.#rules;
    if (count > burst) return Number.POSITIVE_INFINITY;
    return Math.ceil((Math.max(0, count - this.available(nowMs)) / ratePerSecond) * 1_000);
  }
}
