import { pause } from '../../src/base/signal.ts';
import type pg from 'pg';
import { closeClient, openClient } from '../../src/postgres/connection.ts';
import type { EarlyAcknowledgement } from './checker.ts';

const INTERVAL_MS = 40;

interface SlotSample {
  readonly pid: number;
  readonly confirmed: string;
}

/**
 * Compares, again and again, what the slot was acknowledged up to with what is durable in the log. The slot is read first:
 * what is durable only grows. Both are asked in one session: after a failover another server answers, and what was durable on
 * the one that died may be gone. A new slot begins ahead of the log, and the relay knows it and sweeps; so only what one and
 * the same walsender was told to move on from is judged.
 */
export class SlotWatch {
  readonly found: EarlyAcknowledgement[] = [];
  /** Comparisons of a slot that had moved. */
  samples = 0;
  readonly #url: () => string;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;
  #before: SlotSample | undefined;
  #client: pg.Client | undefined;

  constructor(url: () => string) {
    this.#url = url;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        await this.#look();
      } catch {
        await this.#disconnect(); // the server is away, or going away: nothing can be compared
      }
      await pause(INTERVAL_MS, signal);
    }
    await this.#disconnect();
  }

  async #disconnect(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    this.#before = undefined;
    if (client !== undefined) await closeClient(client);
  }

  async #look(): Promise<void> {
    const client = (this.#client ??= await openClient({
      connectionString: this.#url(),
      applicationName: 'torture slot watch',
    }));
    const {
      rows: [slot],
    } = await client.query<{ active_pid: number; confirmed: string }>(
      `select active_pid, confirmed_flush_lsn::text as confirmed from pg_replication_slots
         where database = current_database() and active_pid is not null and confirmed_flush_lsn is not null`,
    );
    const before = this.#before;
    this.#before = slot === undefined ? undefined : { pid: slot.active_pid, confirmed: slot.confirmed };
    if (slot === undefined || before?.pid !== slot.active_pid || before.confirmed === slot.confirmed) return;
    this.samples += 1;
    const {
      rows: [row],
    } = await client.query<{ durable: string; early: boolean }>(
      `select progress::text as durable, $1::pg_lsn > progress as early from torture.batch order by seq desc limit 1`,
      [slot.confirmed],
    );
    if (row?.early === true) this.found.push({ confirmed: slot.confirmed, durable: row.durable });
  }
}
