import type pg from 'pg';
import { describe, expect, it } from 'vitest';
import { GroupTables } from '../../src/consumer/group-tables.ts';
import { migrate } from '../../src/postgres/migrations.ts';
import { quoteSchema } from '../../src/postgres/schema-name.ts';
import { createTestDatabase } from '../servers/test-database.ts';

const ROW = {
  topic: 'orders',
  partition: 0,
  nextOffset: 0n,
  epoch: 1n,
  owner: 'one',
  wanted: null,
  opensAfter: null,
  generation: 1,
};

describe.each(['tailrace', 'custom'])('assert_assignment in the schema %s', (schema) => {
  const assertOwner = `select ${quoteSchema(schema)}.assert_assignment('billing', 'orders', 0, 1)`;

  it('passes for the owner, and for nobody after a takeover', async () => {
    await using database = await createDatabase(schema);
    await database.pool.query(assertOwner);
    expect(await takeOver(database.pool, schema)).toHaveLength(1);
    await expect(database.pool.query(assertOwner)).rejects.toMatchObject({ code: 'TR001' });
  });

  it('holds up a takeover until the transaction that asked has ended', async () => {
    await using database = await createDatabase(schema);
    const handler = await database.pool.connect();
    await handler.query('begin');
    await handler.query(assertOwner);
    expect(await takeOver(database.pool, schema)).toEqual([]);
    await handler.query('commit');
    handler.release();
    expect(await takeOver(database.pool, schema)).toMatchObject([{ topic: 'orders', partition: 0, epoch: 2n }]);
  });
});

async function createDatabase(schema: string) {
  const database = await createTestDatabase();
  await migrate(database.pool, { schema });
  await database.pool.query(
    `insert into ${schema}.consumer_group (name) values ('billing');
     insert into ${schema}.consumer_cursor (group_name, topic, partition, next_offset, epoch, owner)
       values ('billing', 'orders', 0, 0, 1, 'one')`,
  );
  return database;
}

async function takeOver(pool: pg.Pool, schema: string) {
  const tables = new GroupTables(quoteSchema(schema), 'billing');
  const client = await pool.connect();
  try {
    await tables.begin(client, 60_000);
    const taken = await tables.take(client, 'two', [ROW], () => true);
    await client.query('commit');
    return taken;
  } finally {
    client.release();
  }
}
