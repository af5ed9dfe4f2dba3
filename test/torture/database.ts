import pg from 'pg';
import { pause } from '../../src/base/signal.ts';
import { listenToPool } from '../../src/postgres/pool-listener.ts';
import { isTransient } from '../../src/postgres/sqlstate.ts';

const PATIENCE_MS = 60_000;
const RETRY_MS = 50;

/** The run's own way to the database, past everything that the faults break. Asks again while the server is away. */
export class Database implements AsyncDisposable {
  readonly #pool: pg.Pool;

  constructor(url: string) {
    this.#pool = new pg.Pool({ connectionString: url, max: 6, application_name: 'torture', allowExitOnIdle: true });
    listenToPool(this.#pool);
  }

  /** For statements that may be sent twice. */
  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return (await this.#pool.query<Row>(text, [...values])).rows;
      } catch (error) {
        if (!isTransient(error) || performance.now() > deadline) throw error;
        await pause(RETRY_MS);
      }
    }
  }

  async one<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row> {
    const [row] = await this.query<Row>(text, values);
    if (row === undefined) throw new Error(`The server answered no row to: ${text}`);
    return row;
  }

  /** Whether the server answers now. */
  async answers(): Promise<boolean> {
    try {
      await this.#pool.query('select 1');
      return true;
    } catch {
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end();
  }
}
