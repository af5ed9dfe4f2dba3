/** How long to wait before a retry. */
export interface Backoff {
  /** The wait before the first retry. @defaultValue 100 */
  readonly initialMs?: number;
  /** The longest wait. @defaultValue 10_000 */
  readonly maxMs?: number;
  /** What each wait is multiplied by to give the next. @defaultValue 2 */
  readonly factor?: number;
}

/**
 * The wait before retry number `attempt` (1 is the first), in milliseconds: exponential, with "equal jitter" (half of it
 * fixed, half random) so that many clients do not return together. `random` is a number in [0, 1).
 */
export function backoffMs(attempt: number, backoff: Backoff = {}, random: number = Math.random()): number {
  const { initialMs = 100, maxMs = 10_000, factor = 2 } = backoff;
  const whole = Math.min(maxMs, initialMs * factor ** Math.max(0, attempt - 1));
  return whole / 2 + (whole / 2) * random;
}
