/**
 * An order and the message that says so, in one transaction; an invoice, written once by whoever cares.
 *
 * Runs on a Postgres of its own, or, with DATABASE_URL, on that server in a database that is dropped at the end:
 *   npm run quickstart
 */
import { Kysely, PostgresDialect } from 'kysely';
// #region imports
import { createOutbox, defineEvent } from 'tailrace';
import { postgresLog } from 'tailrace/broker/postgres';
import { createConsumer } from 'tailrace/consumer';
import { createRelay, walSource } from 'tailrace/relay';
// #endregion
import { createTestDatabase } from 'tailrace/testing';
import { z } from 'zod';

await using database = await createTestDatabase({ connectionString: process.env['DATABASE_URL'] });
const { connectionString, pool } = database;
await pool.query('create table orders (id text, total int); create table invoice (order_id text, total int)');
const db = new Kysely<{ orders: { id: string; total: number } }>({ dialect: new PostgresDialect({ pool }) });
const handled = Promise.withResolvers<undefined>();
const report = (text: string): void => {
  console.log(text);
  handled.resolve(undefined);
};

// #region quickstart
const OrderPlaced = defineEvent('OrderPlaced', {
  topic: 'orders',
  key: (order) => order.orderId, // messages of one key keep their order
  schema: z.object({ orderId: z.string(), total: z.number() }),
});

const outbox = createOutbox();
const log = postgresLog({ connectionString });
const relay = createRelay({ source: walSource({ connectionString }), log });
const billing = createConsumer({ log, group: 'billing', database: pool }).on(OrderPlaced, async (event, { tx }) => {
  const { orderId, total } = event.payload; // typed by the schema
  await tx.query('insert into invoice values ($1, $2)', [orderId, total]); // commits with the row "handled"
  report(`an invoice over ${total} for order ${orderId}`);
});
await relay.start();
await billing.start();

await db.transaction().execute(async (tx) => {
  await tx.insertInto('orders').values({ id: 'A-1', total: 42 }).execute();
  await outbox.publish(tx, OrderPlaced({ orderId: 'A-1', total: 42 })); // commits with the order, or not at all
});
// #endregion

await handled.promise;
await billing.stop();
await relay.stop();
await log.close();
const { rows } = await pool.query<{ order_id: string; total: number }>('select * from invoice');
console.log('invoices:', JSON.stringify(rows));
