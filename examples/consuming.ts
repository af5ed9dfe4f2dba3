/**
 * Handlers: one message at a time, in batches, and what becomes of a message that cannot be handled.
 *
 *   node --conditions=tailrace-source examples/consuming.ts
 */
import { Registry } from 'prom-client';
import { defineEvent } from 'tailrace';
import { createConsumer, registerConsumerMetrics } from 'tailrace/consumer';
import { startTestPipeline } from 'tailrace/testing';

interface Order {
  readonly orderId: string;
  readonly total: number;
}
const OrderPlaced = defineEvent<Order>('OrderPlaced', { topic: 'orders', key: ({ orderId }) => orderId });
const OrderPaid = defineEvent<Order>('OrderPaid', { topic: 'payments', key: ({ orderId }) => orderId });

await using pipeline = await startTestPipeline({ connectionString: process.env['DATABASE_URL'] });
const { log, outbox, pool } = pipeline;
await pool.query(
  `create table invoice (order_id text, total int); create table payment (order_id text, total int);
   create table label (order_id text)`,
);

// #region handler
const billing = createConsumer({ log, group: 'billing', database: pool })
  .on(OrderPlaced, async (event, { tx }) => {
    const { orderId, total } = event.payload;
    await tx.query('insert into invoice values ($1, $2)', [orderId, total]); // commits once for this message
    await outbox.publish(tx, OrderPaid({ orderId, total })); // and so does what it publishes
  })
  .on(OrderPaid, (event, { record, attempt }) => {
    console.log(`${event.type} ${event.payload.orderId}: attempt ${attempt}, topic ${record.topic}`);
  });
// #endregion

// #region batch
const ledger = createConsumer({ log, group: 'ledger', database: pool }).onBatch(
  OrderPaid,
  { maxRecords: 1_000 },
  async (events, { tx }) => {
    const rows = JSON.stringify(events.map(({ payload }) => payload));
    await tx.query(
      `insert into payment select "orderId", total from json_to_recordset($1) as p ("orderId" text, total int)`,
      [rows],
    );
  },
);
// #endregion

// #region retries
const mail = createConsumer({
  log,
  group: 'mail',
  database: pool,
  retries: { attempts: 5, backoff: { initialMs: 10, factor: 2, maxMs: 1_000 } },
}).on(OrderPlaced, async (event) => {
  if (event.payload.total > 100) throw new Error('the mail server refuses this'); // tried 5 times, then a dead letter
});
// #endregion

const totals = new Map<string, number>();
let rings = 0;
// #region deliveries
// Nothing is written for a message; after a crash, those since the last stored place come again.
const cache = createConsumer({ log, group: 'cache', database: pool, delivery: 'at-least-once' }).on(
  OrderPlaced,
  ({ payload }) => void totals.set(payload.orderId, payload.total),
);
// Each message is durably said to be handled first: its handler is never called twice, and perhaps not to its end.
const bell = createConsumer({ log, group: 'bell', database: pool, delivery: 'at-most-once' }).on(OrderPlaced, () => {
  rings += 1; // if this throws, the message is a dead letter at once
});
// #endregion

const here = new Map<string, number>();
// #region ephemeral
// A group of this process: it gets every message from its start on, and leaves nothing behind.
const caches = createConsumer({ log, group: 'caches', ephemeral: true, database: pool }).on(
  OrderPlaced,
  ({ payload }) => void here.set(payload.orderId, payload.total),
);
// #endregion

const parcelsAskedFor: string[] = [];
async function askForParcel(orderId: string, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  parcelsAskedFor.push(orderId);
  return Promise.resolve();
}

const printer = { hasPaper: true };
// #region work-queue
const labels = createConsumer({
  log,
  group: 'labels',
  database: pool,
  mode: 'work-queue', // in as many processes as there is work for, whatever the number of partitions
  prefetch: { records: 16 }, // a process has no more than these in hand; all others are the rest's
}).on(OrderPlaced, async ({ payload }, { tx, reject, release }) => {
  if (payload.total > 100) reject('too heavy for a label'); // a dead letter at once
  if (!printer.hasPaper) release({ delayMs: 60_000 }); // again in a minute; uses up no attempt
  await tx.query('insert into label values ($1)', [payload.orderId]);
});
// #endregion

// #region limits
const parcels = createConsumer({
  log,
  group: 'parcels',
  database: pool,
  maxHandlerMs: 10_000,
  circuitBreaker: { failures: 20, wait: { initialMs: 1_000, maxMs: 60_000 } },
  limits: [
    { per: 'consumer', rate: 100, burst: 50, shared: true }, // all members of the group together
    { per: 'key', rate: 10 },
  ],
}).on(OrderPaid, async ({ payload }, { signal }) => {
  await askForParcel(payload.orderId, signal);
});
// #endregion

// #region metrics
const registry = new Registry(); // of prom-client; its global `register` will do too
registerConsumerMetrics(registry, () => [billing, ledger, mail]);
// #endregion

const consumers = [billing, ledger, mail, parcels, labels, cache, caches, bell];
for (const consumer of consumers) await consumer.start();
await pipeline.publish([
  OrderPlaced({ orderId: 'A-1', total: 42 }),
  OrderPlaced({ orderId: 'A-2', total: 200 }), // too much for mail
]);
await pipeline.drained({ timeoutMs: 30_000 }); // the orders are handled
await pipeline.drained({ timeoutMs: 30_000 }); // and so are the payments that handlers published

const count = async (table: string): Promise<unknown> => (await pool.query(`select from ${table}`)).rowCount;
console.log(
  'invoices:',
  await count('invoice'),
  '- payments:',
  await count('payment'),
  '- parcels:',
  parcelsAskedFor.length,
  '- labels:',
  await count('label'),
);
console.log('orders in the cache:', totals.size, '- in that of this process:', here.size, '- rings:', rings);
const metrics = (await registry.metrics()).split('\n');
console.log(metrics.find((line) => line.startsWith('tailrace_consumer_dead_messages_total{group="mail"}')));
for (const { group, type, key, attempts, error } of await pipeline.deadLetters()) {
  console.log(
    `dead letter of ${group}: ${type} ${key ?? ''} after ${attempts} attempts, ${error?.split('\n')[0] ?? ''}`,
  );
}
for (const consumer of consumers) await consumer.stop();
