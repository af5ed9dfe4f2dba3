import type pg from 'pg';
import { closeClient, openClient } from '../../postgres/connection.ts';
import type { Attempt } from './order-service.ts';

/** The time in milliseconds, with its fraction, on the clock that all processes of this machine share. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

const FLUSH_MS = 100;

/**
 * Writes down what became of each attempt, through a connection of its own: what a transaction has rolled back must be known
 * from outside of it.
 */
export class AttemptLog {
  readonly #client: pg.Client;
  readonly #timer: NodeJS.Timeout;
  #waiting: { readonly attempt: Attempt; readonly endedAtMs: number }[] = [];
  #writing: Promise<void> = Promise.resolve();

  private constructor(client: pg.Client) {
    this.#client = client;
    this.#timer = setInterval(() => {
      this.#writing = this.#writing.then(() => this.#flush());
    }, FLUSH_MS);
  }

  static async open(connectionString: string, name: string): Promise<AttemptLog> {
    return new AttemptLog(await openClient({ connectionString, applicationName: `demo ${name} attempts` }));
  }

  /** Notes attempts that ended together, at a time given by {@link nowMs}. */
  add(attempts: readonly Attempt[], endedAtMs: number): void {
    for (const attempt of attempts) this.#waiting.push({ attempt, endedAtMs });
  }

  /** Writes what is noted. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#writing;
    await this.#flush();
    await closeClient(this.#client);
  }

  async #flush(): Promise<void> {
    const rows = this.#waiting;
    if (rows.length === 0) return;
    this.#waiting = [];
    await this.#client.query(
      `insert into shop.attempt (order_id, outcome, ended_at)
         select id, outcome, to_timestamp(ms / 1000) from unnest($1::uuid[], $2::text[], $3::float8[]) a (id, outcome, ms)`,
      [
        rows.map(({ attempt }) => attempt.orderId),
        rows.map(({ attempt }) => attempt.outcome),
        rows.map(({ endedAtMs }) => endedAtMs),
      ],
    );
  }
}
