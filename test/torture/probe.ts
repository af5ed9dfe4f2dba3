import { pause } from '../../src/base/signal.ts';
import type { Database } from './database.ts';
import { GROUPS } from './groups.ts';
import { monotonicMs } from './history.ts';
import { PROBE_KEY } from './tables.ts';

/** So long it waits at most, whatever moves. */
const LONGEST_MS = 180_000;
/** So often another message follows one that has not arrived: if it overtakes that one, that one is lost. */
const FOLLOW_MS = 10_000;
const LOOK_MS = 20;

interface Arrival {
  /** Groups that have handled the message. */
  readonly handled: number;
  /** Groups that have handled one of the messages behind it. */
  readonly passed: number;
}

/** Commits messages of its own, and waits for their effects. Their ids are below those of all writers. */
export class Probe {
  readonly #database: Database;
  readonly #handlers: Database;
  readonly #patienceMs: number;
  readonly #stop: AbortSignal;
  #id = 0;

  /**
   * @param handlers the database that handlers write to.
   * @param patienceMs how long nothing but messages of its own may move before it counts as a stall.
   */
  constructor(database: Database, handlers: Database, patienceMs: number, stop: AbortSignal) {
    this.#database = database;
    this.#handlers = handlers;
    this.#patienceMs = patienceMs;
    this.#stop = stop;
  }

  /**
   * From now until every group has handled a message committed now, in milliseconds; `undefined` once it is lost or nothing
   * moves any more. What waited before it is worked off first: on a slow machine that takes its time.
   */
  async arrive(): Promise<number | undefined> {
    const startedMs = monotonicMs();
    const id = await this.#commit();
    let followedMs = startedMs;
    let movedMs = startedMs;
    let seen = '';
    while (!this.#stop.aborted) {
      const { handled, passed } = await this.#arrival(id);
      const nowMs = monotonicMs();
      if (handled >= GROUPS.length) return nowMs - startedMs;
      const effects = await this.#effects();
      if (effects !== seen) movedMs = nowMs;
      seen = effects;
      if (passed >= GROUPS.length || nowMs - movedMs > this.#patienceMs || nowMs - startedMs > LONGEST_MS)
        return undefined;
      if (nowMs - followedMs > FOLLOW_MS) {
        followedMs = nowMs;
        await this.#commit();
      }
      await pause(LOOK_MS, this.#stop);
    }
    return undefined;
  }

  async #commit(): Promise<number> {
    const id = ++this.#id;
    // What is sent twice because its answer was lost is refused by the key of the truth.
    await this.#database.query(
      `select torture.step($1, $2) where not exists (select from torture.truth where id = $2)`,
      [PROBE_KEY, id],
    );
    return id;
  }

  async #effects(): Promise<string> {
    const { last } = await this.#handlers.one<{ last: string }>(
      `select coalesce(pg_sequence_last_value('torture.effect_seq_seq'), 0)
         - (select count(*) from torture.effect where k = $1) as last`,
      [PROBE_KEY],
    );
    return last;
  }

  async #arrival(id: number): Promise<Arrival> {
    const { handled, passed } = await this.#handlers.one<{ handled: string; passed: string }>(
      `select count(distinct group_name) filter (where id = $2) as handled,
         count(distinct group_name) filter (where id > $2) as passed
       from torture.effect where k = $1 and id >= $2`,
      [PROBE_KEY, id],
    );
    return { handled: Number(handled), passed: Number(passed) };
  }
}
