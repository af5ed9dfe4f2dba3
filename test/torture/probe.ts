import type { Database } from './database.ts';
import { GROUPS } from './groups.ts';
import { monotonicMs } from './history.ts';
import { PROBE_KEY } from './tables.ts';
import { waitUntil } from './wait-until.ts';

/** How long nothing at all may move before it counts as a stall. */
const STALL_MS = 60_000;

/** Commits messages of its own, and waits for their effects. Their ids are below those of all writers. */
export class Probe {
  readonly #database: Database;
  readonly #stop: AbortSignal;
  #id = 0;

  constructor(database: Database, stop: AbortSignal) {
    this.#database = database;
    this.#stop = stop;
  }

  /**
   * From now until every group has handled a message committed now, in milliseconds; `undefined` if that has not happened and
   * nothing moves any more. What waited before it is worked off first: on a slow machine that takes its time.
   */
  async arrive(): Promise<number | undefined> {
    const startedMs = monotonicMs();
    const id = ++this.#id;
    // What was sent twice because its answer was lost is refused by the key of the truth.
    await this.#database.query(
      `select torture.step($1, $2) where not exists (select from torture.truth where id = $2)`,
      [PROBE_KEY, id],
    );
    let seen = '';
    while (await waitUntil(async () => (await this.#effects()) !== seen, STALL_MS, this.#stop)) {
      seen = await this.#effects();
      if (await this.#isHandled(id)) return monotonicMs() - startedMs;
    }
    return undefined;
  }

  async #effects(): Promise<string> {
    const { last } = await this.#database.one<{ last: string }>(
      `select coalesce(pg_sequence_last_value('torture.effect_seq_seq'), 0) as last`,
    );
    return last;
  }

  async #isHandled(id: number): Promise<boolean> {
    const { handled } = await this.#database.one<{ handled: string }>(
      'select count(*) as handled from torture.effect where k = $1 and id = $2',
      [PROBE_KEY, id],
    );
    return Number(handled) >= GROUPS.length;
  }
}
