import { pause } from '../../src/base/signal.ts';
import type { Stage } from './stage.ts';

const LOOK_MS = 250;
/** Above so many unhandled messages the writers wait; below half of it they go on. */
export const MOST_WAITING = 1_500;

/**
 * Lets the writers wait while the consumers are far behind: on a slow machine a run writes less, in place of taking ever
 * longer to recover.
 */
export class Pacer {
  readonly #stage: Pick<Stage, 'waiting' | 'holdWriters'>;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #isHeld = false;

  constructor(stage: Pick<Stage, 'waiting' | 'holdWriters'>) {
    this.#stage = stage;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const waiting = await this.#waiting();
      const isHeld = waiting > (this.#isHeld ? MOST_WAITING / 2 : MOST_WAITING);
      if (isHeld !== this.#isHeld) this.#stage.holdWriters(isHeld);
      this.#isHeld = isHeld;
      await pause(LOOK_MS, signal);
    }
  }

  async #waiting(): Promise<number> {
    try {
      return await this.#stage.waiting();
    } catch {
      return 0; // the server is away for long; whoever needs it will say so
    }
  }
}
