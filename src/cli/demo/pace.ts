import { pause } from '../../base/signal.ts';

/** How far behind its pace a writer may catch up at full speed; beyond that it lets the lost time go. */
const CATCH_UP_MS = 250;

/** Spreads work evenly over time. */
export class Pace {
  readonly #intervalMs: number;
  #dueAtMs: number;

  constructor(perSecond: number, nowMs: number) {
    this.#intervalMs = 1_000 / perSecond;
    this.#dueAtMs = nowMs;
  }

  /** Resolves when the next piece of work is due; at once while behind. */
  async wait(abort: AbortSignal): Promise<void> {
    const now = performance.now();
    this.#dueAtMs = Math.max(this.#dueAtMs + this.#intervalMs, now - CATCH_UP_MS);
    if (this.#dueAtMs > now) await pause(this.#dueAtMs - now, abort);
  }
}
