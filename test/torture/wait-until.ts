import { pause } from '../../src/base/signal.ts';

const LOOK_MS = 20;

/** Looks again and again until `holds` answers true. Returns false when that took longer than `limitMs`, or the run is stopped. */
export async function waitUntil(
  holds: () => boolean | Promise<boolean>,
  limitMs: number,
  signal?: AbortSignal,
): Promise<boolean> {
  const deadline = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > deadline || signal?.aborted === true) return false;
    await pause(LOOK_MS, signal);
  }
  return true;
}
