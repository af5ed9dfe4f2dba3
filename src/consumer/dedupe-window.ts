import { backoffMs, type Backoff } from '../base/backoff.ts';
import { delayMs, type DelayedRetries } from './delayed-retries.ts';

const DAY_MS = 24 * 3600 * 1000;

/** What a group has that does not say more. */
export const LEAST_DEFAULT_WINDOW_MS = 7 * DAY_MS;

/** The longest window but `false`: ten years. */
export const LONGEST_WINDOW_MS = 3650 * DAY_MS;

/** What decides how long a message may be on its way through its attempts. */
export interface RetryRules {
  readonly attempts: number;
  readonly backoff: Backoff;
  readonly delayed: DelayedRetries;
  readonly maxHandlerMs: number | false;
  readonly leaseMs: number;
}

/**
 * How long a message may take from its first attempt to its last, in milliseconds: all attempts with their waits at the
 * longest, and a lease, for a member that dies on the way. Handlers without a limit count as if they took no time.
 */
export function retryHorizonMs({ attempts, backoff, delayed, maxHandlerMs, leaseMs }: RetryRules): number {
  const delays = 'delaysMs' in delayed ? delayed.delaysMs.length : delayed.attempts;
  const handlersMs = (attempts + delays) * (maxHandlerMs === false ? 0 : maxHandlerMs);
  const atOnceMs = sumOfWaits(attempts - 1, (retry) => backoffMs(retry, backoff, 1));
  const delayedMs =
    'delaysMs' in delayed
      ? delayed.delaysMs.reduce((sum, ms) => sum + ms, 0)
      : sumOfWaits(delays, (retry) => delayMs(delayed, retry, 1) ?? 0);
  return Math.min(LONGEST_WINDOW_MS, Math.ceil(leaseMs + handlersMs + atOnceMs + delayedMs));
}

/** Waits that have stopped growing are not counted one by one. */
function sumOfWaits(count: number, waitOf: (retry: number) => number): number {
  let [sum, former] = [0, Number.NaN];
  for (let retry = 1; retry <= count; retry += 1) {
    const wait = waitOf(retry);
    if (wait === former) return sum + (count - retry + 1) * wait;
    sum += wait;
    former = wait;
  }
  return sum;
}

/** The window of a group that says nothing. */
export function defaultDedupeWindowMs(rules: RetryRules): number {
  return Math.max(LEAST_DEFAULT_WINDOW_MS, retryHorizonMs(rules));
}
