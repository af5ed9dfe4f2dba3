/**
 * A service's process: it starts, works until SIGTERM, and hands its partitions over before it ends.
 *
 *   node --conditions=tailrace-source examples/worker.ts
 */
import pg from 'pg';
import { defineEvent } from 'tailrace';
import { postgresLog } from 'tailrace/broker/postgres';
import { createConsumer } from 'tailrace/consumer';
import { startTestPipeline } from 'tailrace/testing';

const OrderPlaced = defineEvent<{ readonly orderId: string }>('OrderPlaced', { topic: 'orders' });

// The outbox and its relay, which elsewhere are other processes.
await using pipeline = await startTestPipeline({ connectionString: process.env['DATABASE_URL'] });
const { connectionString } = pipeline;
await pipeline.publish([OrderPlaced({ orderId: 'A-1' })]);
const ended = Promise.withResolvers<undefined>();

// #region worker
const pool = new pg.Pool({ connectionString });
pool.on('error', (error) => console.error(error.message)); // an idle connection was lost: the pool makes another
const log = postgresLog({ connectionString });
const billing = createConsumer({ log, group: 'billing', database: pool }).on(OrderPlaced, (event) => {
  console.log(`handled ${event.payload.orderId}`);
});

async function stop(): Promise<void> {
  await billing.stop(); // handlers end, and the partitions go to the other members at once
  await log.close();
  await pool.end();
}

process.once('SIGTERM', () => void stop());
await billing.start();
// #endregion

process.once('SIGTERM', () => {
  ended.resolve(undefined);
});
await pipeline.drained({ timeoutMs: 30_000 });
process.kill(process.pid, 'SIGTERM');
await ended.promise;
console.log(`stopping: ${billing.status().state}`);
