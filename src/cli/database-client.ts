import pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { listenToPool } from '../postgres/pool-listener.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { sqlStateOf } from '../postgres/sqlstate.ts';
import { clientUrl } from '../postgres/tls.ts';
import { failureOf } from './explain-error.ts';
import { CommandFailure } from './failure.ts';

const CONNECT_TIMEOUT_MS = 15_000;

/** A connection for the length of one command. */
export interface DatabaseTask {
  readonly url: string;
  readonly schema: string;
  /** Names the command in `pg_stat_activity`. */
  readonly command: string;
}

/**
 * Connects, runs `action` and disconnects, whatever happens.
 *
 * @throws TailraceError `INVALID_SCHEMA_NAME`. CommandFailure what went wrong, in words for the user; a table that is missing, as `NOT_MIGRATED`.
 */
export async function withClient<Result>(
  { url, schema, command }: DatabaseTask,
  action: (client: pg.Client) => Promise<Result>,
): Promise<Result> {
  quoteSchema(schema); // a wrong name is known before anything is asked
  const client = new pg.Client({
    connectionString: clientUrl(url),
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    application_name: `tailrace ${command}`,
  });
  client.on('error', () => undefined); // the statement that is under way rejects as well
  try {
    await client.connect();
    return await action(client);
  } catch (error) {
    throw databaseFailure(error, url, schema);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** The same for what takes its connections from a pool: here one at a time. */
export async function withPool<Result>(
  { url, schema, command }: DatabaseTask,
  action: (pool: pg.Pool) => Promise<Result>,
): Promise<Result> {
  quoteSchema(schema);
  const pool = new pg.Pool({
    connectionString: clientUrl(url),
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    application_name: `tailrace ${command}`,
    max: 1,
  });
  listenToPool(pool);
  try {
    return await action(pool);
  } catch (error) {
    throw databaseFailure(error, url, schema);
  } finally {
    await pool.end();
  }
}

/** No such table, schema or function. */
const MISSING = /^(42P01|3F000|42883)$/;

/** What a command that needs the tables ends with. */
export function databaseFailure(error: unknown, url: string, schema: string): CommandFailure {
  if (error instanceof CommandFailure || !MISSING.test(sqlStateOf(error) ?? '')) return failureOf(error, url);
  return failureOf(notMigrated(schema, error));
}

function notMigrated(schema: string, cause: unknown): TailraceError {
  const option = schema === 'tailrace' ? '' : ` --schema ${schema}`;
  return new TailraceError(
    'NOT_MIGRATED',
    `The tables of tailrace are missing in the schema ${schema} of this database, or older than this version. Run tailrace migrate${option}, and see that it is the database you mean.`,
    { cause },
  );
}
