import { pause } from '../../src/base/signal.ts';
import type { Database } from './database.ts';
import { GROUPS } from './groups.ts';
import { BULK_KEY } from './tables.ts';

const LOOK_MS = 250;
/** Above so many unhandled messages the writers wait; below half of it they go on. */
const MOST_WAITING = 1_500;

/**
 * Lets the writers wait while the consumers are far behind: on a slow machine a run writes less, in place of taking ever
 * longer to recover.
 */
export class Pacer {
  readonly #database: Database;
  readonly #hold: (isHeld: boolean) => void;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #isHeld = false;

  constructor(database: Database, hold: (isHeld: boolean) => void) {
    this.#database = database;
    this.#hold = hold;
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
      if (isHeld !== this.#isHeld) this.#hold(isHeld);
      this.#isHeld = isHeld;
      await pause(LOOK_MS, signal);
    }
  }

  /** An estimate: the effects' sequence also counts those that were undone. */
  async #waiting(): Promise<number> {
    try {
      const { written, handled } = await this.#database.one<{ written: string; handled: string }>(
        `select (select coalesce(sum(n), 0) from torture.agg where k <> $1) as written,
           coalesce(pg_sequence_last_value('torture.effect_seq_seq'), 0) as handled`,
        [BULK_KEY],
      );
      return Number(written) - Number(handled) / GROUPS.length;
    } catch {
      return 0; // the server is away for long; whoever needs it will say so
    }
  }
}
