import type { Figures } from './figures.ts';

/** Notices that figures have stopped changing. */
export class StallWatch {
  readonly #afterMs: number;
  #seen = '';
  #changedAtMs = performance.now();

  constructor(afterMs: number) {
    this.#afterMs = afterMs;
  }

  /** Whether nothing has changed for too long. */
  get hasStalled(): boolean {
    return performance.now() - this.#changedAtMs >= this.#afterMs;
  }

  /** Takes the figures of now in. */
  see(figures: Figures): void {
    const now = JSON.stringify(figures);
    if (now !== this.#seen) this.#changedAtMs = performance.now();
    this.#seen = now;
  }
}
