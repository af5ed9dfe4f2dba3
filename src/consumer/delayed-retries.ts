import { backoffMs } from '../base/backoff.ts';

/** The waits of a record that is parked between its attempts: a list, or exponential with jitter. */
export type DelayedRetries =
  | {
      /** One more attempt after each of these, in milliseconds. */
      readonly delaysMs: readonly number[];
    }
  | {
      /** How many more attempts there are. */
      readonly attempts: number;
      /** The wait before the first of them, in milliseconds. @defaultValue 1_000 */
      readonly initialMs?: number;
      /** The longest wait. @defaultValue 3_600_000 */
      readonly maxMs?: number;
      /** What each wait is multiplied by to give the next. @defaultValue 4 */
      readonly factor?: number;
    };

/** None. */
export const NO_DELAYED_RETRIES: DelayedRetries = { delaysMs: [] };

/** The wait before delayed retry number `retry` (1 is the first); `undefined` if there is none left. */
export function delayMs(delayed: DelayedRetries, retry: number, random?: number): number | undefined {
  if ('delaysMs' in delayed) return delayed.delaysMs[retry - 1];
  if (retry > delayed.attempts) return undefined;
  const { initialMs = 1_000, maxMs = 3_600_000, factor = 4 } = delayed;
  return backoffMs(retry, { initialMs, maxMs, factor }, random);
}
