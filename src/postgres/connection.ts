import pg from 'pg';

export interface ConnectionOptions {
  readonly connectionString: string;
  /** What `pg_stat_activity` shows. */
  readonly applicationName: string;
  /** Called once when the connection is lost without having been closed here. */
  readonly onLost?: (error: Error) => void;
  /** Settings for the session, such as `{ statement_timeout: '10s' }`. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** A connected client of one's own. Close it with {@link closeClient}. */
export async function openClient(options: ConnectionOptions): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: options.connectionString,
    application_name: options.applicationName,
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
    throw error;
  }
}

/** Closes a connection, whatever state it is in. Never throws. */
export async function closeClient(client: pg.Client): Promise<void> {
  await client.end().catch(() => undefined);
}
