import { pause } from '../../src/base/signal.ts';
import type { ServerSample } from './checker.ts';
import type { Database } from './database.ts';
import { monotonicMs } from './history.ts';

const INTERVAL_MS = 500;

/**
 * Looks again and again how much WAL the slot holds back, and how old the oldest transaction of a relay is. What a fault holds
 * up is not judged: ages count from the end of the last fault.
 */
export class ServerWatch {
  readonly samples: ServerSample[] = [];
  readonly #database: Database;
  readonly #calmSinceMs: () => number | undefined;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;

  /** @param calmSinceMs when the last fault was over, on the monotonic clock; `undefined` while there is one. */
  constructor(database: Database, calmSinceMs: () => number | undefined) {
    this.#database = database;
    this.#calmSinceMs = calmSinceMs;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await this.#look().catch(() => undefined); // the server is away, or going away
      await pause(INTERVAL_MS, signal);
    }
  }

  async #look(): Promise<void> {
    const calmSinceMs = this.#calmSinceMs();
    const startedMs = monotonicMs();
    const row = await this.#database.one<{ retained: string; age_ms: number; oldest: string | null }>(
      `select (select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0) from pg_replication_slots
           where database = current_database()) as retained,
         coalesce(extract(epoch from clock_timestamp() - xact_start), 0)::float8 * 1000 as age_ms,
         application_name || ', ' || state || ', ' || coalesce(wait_event, 'waits for nothing') || ', ' || left(query, 200) as oldest
       from (select 1) once left join pg_stat_activity on application_name ~ '^tailrace (relay|writer|log)'
         and application_name <> 'tailrace relay slot' and xact_start is not null
       order by xact_start limit 1`,
    );
    const endedMs = monotonicMs();
    if (this.#calmSinceMs() !== calmSinceMs) return;
    this.samples.push({
      retainedWalBytes: Number(row.retained),
      transactionMs: calmSinceMs === undefined ? 0 : Math.min(row.age_ms, endedMs - calmSinceMs),
      answerMs: endedMs - startedMs,
      ...(row.oldest !== null && { oldest: row.oldest }),
    });
  }
}
