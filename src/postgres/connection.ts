import pg from 'pg';
import { clientUrl, withTlsExplained } from './tls.ts';

/** A server that says nothing for so long while it is being connected to counts as away. */
export const CONNECT_TIMEOUT_MS = 20_000;
/** How long a goodbye may take. */
const CLOSE_TIMEOUT_MS = 1_000;

export interface ConnectionOptions {
  readonly connectionString: string;
  /** What `pg_stat_activity` shows. */
  readonly applicationName: string;
  /** Called once when the connection is lost without having been closed here. */
  readonly onLost?: (error: Error) => void;
  /** Settings for the session, such as `{ statement_timeout: '10s' }`. */
  readonly settings?: Readonly<Record<string, string>>;
}

/**
 * A connected client of one's own. Close it with {@link closeClient}. Whether it is encrypted is the URL's word alone
 * ({@link clientUrl}): it is never given up for a server that has no encryption.
 *
 * @throws TailraceError `TLS_REFUSED`.
 */
export async function openClient(options: ConnectionOptions): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: clientUrl(options.connectionString),
    application_name: options.applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
  });
  client.on('error', (error) => options.onLost?.(error));
  try {
    await client.connect();
    for (const [name, value] of Object.entries(options.settings ?? {})) {
      await client.query('select set_config($1, $2, false)', [name, value]);
    }
    return client;
  } catch (error) {
    await closeClient(client);
    throw withTlsExplained(error);
  }
}

/** Closes a connection, whatever state it is in, and does not wait for a network that is gone. Never throws. */
export async function closeClient(client: pg.Client): Promise<void> {
  const timer = setTimeout(() => {
    destroyClient(client);
  }, CLOSE_TIMEOUT_MS);
  await client.end().catch(() => undefined);
  clearTimeout(timer);
}

/** Ends a connection at once: what waits for an answer on it is rejected. */
export function destroyClient(client: pg.Client): void {
  client.connection.stream.destroy();
}
