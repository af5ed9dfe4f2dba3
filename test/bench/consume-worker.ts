import pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/index.ts';

/**
 * Handles so many messages with one row each as effect, 8 at once, and prints how long that took: as a consumer, or as
 * plain `pg` would do it that knows the messages already.
 */
const { connectionString, messages, group, isBare } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
  group: string;
  isBare: boolean;
};

const AT_ONCE = 8;
const EFFECT = 'insert into effect (customer, quantity) values ($1, $2)';

interface Order {
  readonly customer: string;
  readonly quantity: number;
}

async function asConsumer(pool: pg.Pool): Promise<number> {
  const log = postgresLog({ connectionString });
  const all = Promise.withResolvers<undefined>();
  let begun = 0;
  const OrderPlaced = defineEvent<Order>('OrderPlaced', { topic: 'orders' });
  const consumer = createConsumer({ log, group, database: pool, concurrency: AT_ONCE }).on(
    OrderPlaced,
    async ({ payload }, { tx }) => {
      await tx.query(EFFECT, [payload.customer, payload.quantity]);
      if ((begun += 1) === messages) all.resolve(undefined);
    },
  );
  const startedAt = performance.now();
  await consumer.start();
  await all.promise;
  while (consumer.status().handled < messages) await new Promise((resolve) => setTimeout(resolve, 1));
  const seconds = (performance.now() - startedAt) / 1_000;
  await consumer.stop();
  await log.close();
  return seconds;
}

async function asBare(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ message_id: string; payload: Order }>(
    'select message_id, payload from tailrace.outbox order by position',
  );
  const clients = await Promise.all(Array.from({ length: AT_ONCE }, () => pool.connect()));
  const startedAt = performance.now();
  await Promise.all(
    clients.map(async (client) => {
      for (let row = rows.pop(); row !== undefined; row = rows.pop()) {
        await client.query('begin');
        await client.query(
          'insert into tailrace.processed_message (message_id, consumer, generation) values ($1, $2, 1) on conflict do nothing',
          [row.message_id, group],
        );
        await client.query(EFFECT, [row.payload.customer, row.payload.quantity]);
        await client.query('commit');
      }
    }),
  );
  const seconds = (performance.now() - startedAt) / 1_000;
  for (const client of clients) client.release();
  return seconds;
}

const pool = new pg.Pool({ connectionString, max: AT_ONCE + 2 });
const before = process.cpuUsage();
const seconds = await (isBare ? asBare(pool) : asConsumer(pool));
const { user, system } = process.cpuUsage(before);
process.stdout.write(`${JSON.stringify({ seconds, cpuMicros: Math.round((user + system) / messages) })}\n`);
await pool.end();
