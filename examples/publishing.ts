/**
 * Ways to publish: pg, several messages at once, commands, SQL from any language, a producer.
 *
 *   node --conditions=tailrace-source examples/publishing.ts
 */
import { createOutbox, createProducer, defineCommand, defineEvent, migrate } from 'tailrace';
import { createTestDatabase } from 'tailrace/testing';
import { z } from 'zod';

await using database = await createTestDatabase({ connectionString: process.env['DATABASE_URL'] });
const { pool } = database;
await pool.query('create table orders (id text primary key, total int)');

// #region migrate
const applied = await migrate(pool); // what it applied; nothing if the schema is up to date
// #endregion
console.log('migrations applied:', applied.length);

// #region definitions
const OrderPlaced = defineEvent('OrderPlaced', {
  topic: 'orders',
  key: (order) => order.orderId,
  schema: z.object({ orderId: z.string(), total: z.int() }),
});

const ShipOrder = defineCommand('ShipOrder', {
  topic: 'shipping',
  key: (order) => order.orderId,
  schema: z.object({ orderId: z.string() }),
});
// #endregion

const outbox = createOutbox();

// #region pg
const client = await pool.connect();
try {
  await client.query('begin');
  await client.query('insert into orders values ($1, $2)', ['A-1', 42]);
  await outbox.publish(client, OrderPlaced({ orderId: 'A-1', total: 42 }));
  await outbox.send(client, ShipOrder({ orderId: 'A-1' })); // a command: it has one receiver
  await client.query('commit');
} catch (error) {
  await client.query('rollback');
  throw error;
} finally {
  client.release();
}
// #endregion

await pool.query(`
-- #region sql
select tailrace.publish(
  topic => 'orders', key => 'A-3', type => 'OrderPlaced', payload => '{"orderId": "A-3", "total": 9}'
);
-- #endregion
`);

await pool.query(`
-- #region sql-later
insert into tailrace.outbox (message_id, topic, key, type, kind, payload, deliver_at, expires_at) values (
  tailrace.uuid_v7(), 'shipping', 'A-3', 'ShipOrder', 'command', '{"orderId": "A-3"}',
  clock_timestamp() + interval '1 hour', clock_timestamp() + interval '1 day'
);
-- #endregion
`);

{
  // #region producer
  await using producer = createProducer({ database: pool }); // stop() commits what it was given; so does the end of the block
  await producer.publish(OrderPlaced({ orderId: 'A-4', total: 7 })); // resolves once it is committed
  await producer.send([ShipOrder({ orderId: 'A-4' }), ShipOrder({ orderId: 'A-5' })]); // committed together
  // #endregion
}

const { rows } = await pool.query<{ topic: string; key: string; kind: string; type: string }>(
  'select topic, key, kind, type from tailrace.outbox order by position',
);
for (const { topic, key, kind, type } of rows) console.log(`${topic} ${key}: ${kind} ${type}`);
