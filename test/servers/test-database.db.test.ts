import pg from 'pg';
import { expect, it } from 'vitest';
import { type TestDatabase, createTestDatabase } from './test-database.ts';

it('gives a migrated, empty database', async () => {
  await using database = await createTestDatabase();
  const result = await database.pool.query('select count(*)::int as count from tailrace.outbox');
  expect(result.rows).toEqual([{ count: 0 }]);
});

it('gives each caller a database of its own', async () => {
  await using one = await createTestDatabase();
  await using other = await createTestDatabase();
  await one.pool.query(`select tailrace.publish('orders', null, 'OrderPlaced', '{}')`);
  const result = await other.pool.query('select from tailrace.outbox');
  expect(result.rowCount).toBe(0);
});

it('drops the database, with a slot in use and a client that was not given back', async () => {
  const database = await createTestDatabase();
  const client = await database.pool.connect();
  await using receiver = await startReceiver(database);
  await untilActive(client, database.name);

  await database[Symbol.asyncDispose]();

  await using other = await createTestDatabase();
  const left = await other.pool.query(
    `select datname as name from pg_database where datname = $1
     union all select slot_name from pg_replication_slots where slot_name = $1`,
    [database.name],
  );
  expect(left.rows).toEqual([]);
  await expect(receiver.ended).rejects.toThrow(/terminat/);
});

/** Streams from a new slot of the database's name until it is cut off. */
async function startReceiver({ name, connectionString }: TestDatabase) {
  const config: pg.ClientConfig & { readonly replication: string } = { connectionString, replication: 'database' };
  const client = new pg.Client(config);
  client.on('error', () => undefined);
  await client.connect();
  await client.query(`CREATE_REPLICATION_SLOT ${name} LOGICAL pgoutput`);
  const ended = client.query(
    `START_REPLICATION SLOT ${name} LOGICAL 0/0 (proto_version '1', publication_names 'tailrace')`,
  );
  ended.catch(() => undefined);
  return { ended, [Symbol.asyncDispose]: () => client.end() };
}

async function untilActive(client: pg.ClientBase, slot: string): Promise<void> {
  for (;;) {
    const result = await client.query('select from pg_replication_slots where slot_name = $1 and active', [slot]);
    if (result.rowCount === 1) return;
  }
}
