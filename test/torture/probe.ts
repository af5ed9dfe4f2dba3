import type { Database } from './database.ts';
import { GROUPS } from './groups.ts';
import { monotonicMs } from './history.ts';
import { PROBE_KEY } from './tables.ts';
import { waitUntil } from './wait-until.ts';

/** Commits messages of its own, and waits for their effects. Their ids are below those of all writers. */
export class Probe {
  readonly #database: Database;
  readonly #limitMs: number;
  readonly #stop: AbortSignal;
  #id = 0;

  constructor(database: Database, limitMs: number, stop: AbortSignal) {
    this.#database = database;
    this.#limitMs = limitMs;
    this.#stop = stop;
  }

  /** From now until every group has handled a message committed now, in milliseconds; `undefined` if that took too long. */
  async arrive(): Promise<number | undefined> {
    const startedMs = monotonicMs();
    const id = ++this.#id;
    // What was sent twice because its answer was lost is refused by the key of the truth.
    await this.#database.query(
      `select torture.step($1, $2) where not exists (select from torture.truth where id = $2)`,
      [PROBE_KEY, id],
    );
    const arrived = await waitUntil(() => this.#isHandled(id), this.#limitMs, this.#stop);
    return arrived ? monotonicMs() - startedMs : undefined;
  }

  async #isHandled(id: number): Promise<boolean> {
    const { handled } = await this.#database.one<{ handled: string }>(
      'select count(*) as handled from torture.effect where k = $1 and id = $2',
      [PROBE_KEY, id],
    );
    return Number(handled) >= GROUPS.length;
  }
}
