import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { createOutbox, defineEvent } from '../../src/index.ts';

/**
 * Commits a block of business transactions for each line on stdin, 8 at once: with `outbox.publish` after `ours`, with an
 * insert into the outbox that knows its columns after `bare`. Prints how fast that was; stops when stdin ends.
 */
const { connectionString, transactions } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  transactions: number;
};

const AT_ONCE = 8;
const ROWS = 10_000;
const Purchased = defineEvent<{ n: number; note: string }>('Purchased', {
  topic: 'purchases',
  key: ({ n }) => `key-${n}`,
});
const note = 'x'.repeat(270);
const outbox = createOutbox();
const pool = new pg.Pool({ connectionString, max: AT_ONCE });

const ways: Readonly<Record<string, (client: pg.PoolClient, n: number) => Promise<unknown>>> = {
  ours: (client, n) => outbox.publish(client, Purchased({ n, note })),
  bare: (client, n) =>
    client.query(
      'insert into tailrace.outbox (message_id, topic, key, type, kind, headers, payload) values ($1, $2, $3, $4, $5, $6, $7)',
      [randomUUID(), 'purchases', `key-${n}`, 'Purchased', 'event', '{}', JSON.stringify({ n, note })],
    ),
};

async function block(publish: (client: pg.PoolClient, n: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    const client = await pool.connect();
    for (let n = next++; n < transactions; n = next++) {
      await client.query('begin');
      await client.query({
        name: 'take',
        text: 'update stock set left_over = left_over - 1 where id = $1',
        values: [n % ROWS],
      });
      await client.query({
        name: 'buy',
        text: 'insert into purchase (n, item) values ($1, $2)',
        values: [n, n % ROWS],
      });
      await publish(client, n);
      await client.query('commit');
    }
    client.release();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}

for await (const line of createInterface({ input: process.stdin })) {
  const publish = ways[line];
  if (publish === undefined) throw new Error(`No way to publish is named ${line}.`);
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  await block(publish);
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const perSecond = Math.round(transactions / seconds);
  process.stdout.write(`${JSON.stringify({ perSecond, cpuMicros: Math.round((user + system) / transactions) })}\n`);
}
await pool.end();
