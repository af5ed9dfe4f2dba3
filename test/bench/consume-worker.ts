import pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/index.ts';

/**
 * Handles so many messages with one row each as effect and prints how long that took: as a consumer, or as plain `pg` would
 * do it that knows the messages already. One a transaction and 8 at once, or `batch` of them in one.
 */
const { connectionString, messages, group, who, batch } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
  group: string;
  who: 'consumer' | 'bare';
  batch: number;
};

const AT_ONCE = 8;
const EFFECT = 'insert into effect (customer, quantity) values ($1, $2)';
const EFFECTS = 'insert into effect (customer, quantity) select * from unnest($1::text[], $2::int[])';

interface Order {
  readonly customer: string;
  readonly quantity: number;
}

function columnsOf(orders: readonly Order[]): [string[], number[]] {
  return [orders.map(({ customer }) => customer), orders.map(({ quantity }) => quantity)];
}

async function asConsumer(pool: pg.Pool): Promise<number> {
  const log = postgresLog({ connectionString });
  const OrderPlaced = defineEvent<Order>('OrderPlaced', { topic: 'orders' });
  const consumer = createConsumer({ log, group, database: pool, concurrency: AT_ONCE });
  if (batch > 1) {
    consumer.onBatch(OrderPlaced, { maxRecords: batch }, async (events, { tx }) => {
      await tx.query(EFFECTS, columnsOf(events.map(({ payload }) => payload)));
    });
  } else {
    consumer.on(OrderPlaced, async ({ payload }, { tx }) => {
      await tx.query(EFFECT, [payload.customer, payload.quantity]);
    });
  }
  const startedAt = performance.now();
  await consumer.start();
  while (consumer.status().handled < messages) await new Promise((resolve) => setTimeout(resolve, 10));
  const seconds = (performance.now() - startedAt) / 1_000;
  await consumer.stop();
  await log.close();
  return seconds;
}

interface Row {
  readonly message_id: string;
  readonly payload: Order;
}

async function asBare(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<Row>('select message_id, payload from tailrace.outbox order by position');
  const clients = await Promise.all(Array.from({ length: AT_ONCE }, () => pool.connect()));
  const startedAt = performance.now();
  await Promise.all(
    clients.map(async (client) => {
      for (let some = rows.splice(-batch); some.length > 0; some = rows.splice(-batch)) {
        await client.query('begin');
        await (batch > 1 ? insertMany(client, some) : insertOne(client, some));
        await client.query('commit');
      }
    }),
  );
  const seconds = (performance.now() - startedAt) / 1_000;
  for (const client of clients) client.release();
  return seconds;
}

async function insertOne(client: pg.PoolClient, rows: readonly Row[]): Promise<void> {
  for (const { message_id, payload } of rows) {
    await client.query(
      'insert into tailrace.processed_message (message_id, consumer, generation) values ($1, $2, 1) on conflict do nothing',
      [message_id, group],
    );
    await client.query(EFFECT, [payload.customer, payload.quantity]);
  }
}

async function insertMany(client: pg.PoolClient, rows: readonly Row[]): Promise<void> {
  await client.query(
    `insert into tailrace.processed_message (message_id, consumer, generation)
     select id, $2, 1 from unnest($1::uuid[]) id on conflict do nothing`,
    [rows.map(({ message_id }) => message_id), group],
  );
  await client.query(EFFECTS, columnsOf(rows.map(({ payload }) => payload)));
}

const pool = new pg.Pool({ connectionString, max: AT_ONCE + 2 });
const before = process.cpuUsage();
const seconds = await (who === 'bare' ? asBare(pool) : asConsumer(pool));
const { user, system } = process.cpuUsage(before);
const peakMiB = Math.round(process.resourceUsage().maxRSS / 1024);
process.stdout.write(`${JSON.stringify({ seconds, cpuMicros: Math.round((user + system) / messages), peakMiB })}\n`);
await pool.end();
