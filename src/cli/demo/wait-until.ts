import { pause } from '../../base/signal.ts';
import { CommandFailure } from '../failure.ts';

const LOOK_INTERVAL_MS = 25;

export interface WaitOptions {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** Says what did not happen, as in "No relay leads". */
  readonly failure: string;
}

/**
 * Resolves once the condition holds.
 *
 * @throws CommandFailure it did not in time. Whatever the signal's reason is, once that has fired.
 */
export async function waitUntil(
  condition: () => boolean | Promise<boolean>,
  { signal, timeoutMs, failure }: WaitOptions,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    signal.throwIfAborted();
    if (await condition()) return;
    if (performance.now() > deadline) throw new CommandFailure(`${failure} after ${Math.round(timeoutMs / 1_000)} s.`);
    await pause(LOOK_INTERVAL_MS, signal);
  }
}
