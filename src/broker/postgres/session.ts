import pg from 'pg';
import { TailraceError } from '../../base/errors.ts';
import { RoundTrips, type Statement, type TextRows } from '../../postgres/round-trip.ts';
import { isConnectionLost } from '../../postgres/sqlstate.ts';
import { clientUrl, withTlsExplained } from '../../postgres/tls.ts';

/** What a {@link Session} connects to, and how. */
export interface SessionOptions {
  readonly connectionString: string;
  /** What `pg_stat_activity` shows. */
  readonly applicationName: string;
  /** Settings of each connection, such as `{ statement_timeout: '5000' }`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** A statement for each new connection, after its settings. */
  readonly openingSql?: string;
  /** Asked of each new connection, which is not used if this rejects. */
  readonly onOpened?: (client: pg.Client) => Promise<void>;
  /** How long to wait for a connection, or for an answer, before the connection counts as lost. */
  readonly timeoutMs: number;
  /** A channel to listen to from the moment the connection is open. */
  readonly channel?: string;
  readonly onNotification?: (payload: string) => void;
  /** Called when an open connection ends that was not closed here. */
  readonly onLost?: (error: Error) => void;
}

/**
 * One connection, opened when it is needed, and opened again by the next query after it was lost. One query at a time. A
 * query whose connection was lost may or may not have been carried out.
 */
export class Session {
  readonly #options: SessionOptions;
  readonly #roundTrips = new RoundTrips();
  #client: pg.Client | undefined;
  #closed = false;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** Connects, if there is no connection. */
  async open(): Promise<void> {
    await this.#connected();
  }

  async query<Row extends pg.QueryResultRow>(query: string | pg.QueryConfig): Promise<pg.QueryResult<Row>> {
    return this.#with((client) => client.query<Row>(query));
  }

  /** The rows of a statement that is prepared, once a connection. */
  async ask(statement: Statement): Promise<TextRows> {
    const [rows = []] = await this.#with((client) => this.#roundTrips.run(client, true, [statement]));
    return rows;
  }

  async #with<Result>(use: (client: pg.Client) => Promise<Result>): Promise<Result> {
    const client = await this.#connected();
    try {
      return await use(client);
    } catch (error) {
      if (isConnectionLost(error)) this.#drop(client);
      throw error;
    }
  }

  /** Ends the connection. May be called more than once; nothing can be asked after it. */
  async close(): Promise<void> {
    this.#closed = true;
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) await endOrDestroy(client, CLOSE_TIMEOUT_MS);
  }

  async #connected(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    this.#assertOpen();
    const client = await this.#connect();
    if (this.#closed) destroy(client);
    this.#assertOpen();
    this.#client = client;
    return client;
  }

  async #connect(): Promise<pg.Client> {
    const { connectionString, applicationName, timeoutMs, onNotification } = this.#options;
    const client = new pg.Client({
      connectionString: clientUrl(connectionString),
      application_name: applicationName,
      connectionTimeoutMillis: timeoutMs,
      query_timeout: timeoutMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: 30_000,
    });
    client.on('error', (error) => this.#lost(client, error));
    client.on('notification', ({ payload }) => onNotification?.(payload ?? ''));
    try {
      await client.connect();
      await this.#prepare(client);
      return client;
    } catch (error) {
      destroy(client);
      throw withTlsExplained(error);
    }
  }

  async #prepare(client: pg.Client): Promise<void> {
    const { settings, openingSql, onOpened, channel } = this.#options;
    if (settings !== undefined) await client.query(...setConfig(settings));
    if (openingSql !== undefined) await client.query(openingSql);
    if (onOpened !== undefined) await onOpened(client);
    if (channel !== undefined) await client.query(`listen ${pg.escapeIdentifier(channel)}`);
  }

  #lost(client: pg.Client, error: Error): void {
    if (client !== this.#client) return;
    this.#drop(client);
    if (!this.#closed) this.#options.onLost?.(error);
  }

  #drop(client: pg.Client): void {
    if (client === this.#client) this.#client = undefined;
    destroy(client);
  }

  #assertOpen(): void {
    if (this.#closed) throw new TailraceError('STOPPED', 'This connection to the log was closed.');
  }
}

const CLOSE_TIMEOUT_MS = 1_000;

/** One statement that puts settings into force for the session: its text and its values. */
export function setConfig(settings: Readonly<Record<string, string>>): [text: string, values: string[]] {
  const calls = Object.keys(settings).map((_, n) => `set_config($${2 * n + 1}, $${2 * n + 2}, false)`);
  return [`select ${calls.join(', ')}`, Object.entries(settings).flat()];
}

/** Says goodbye, but does not wait for a network that is gone. */
async function endOrDestroy(client: pg.Client, timeoutMs: number): Promise<void> {
  const timer = setTimeout(() => destroy(client), timeoutMs);
  await client.end().catch(() => undefined);
  clearTimeout(timer);
}

function destroy(client: pg.Client): void {
  client.connection.stream.destroy();
}
