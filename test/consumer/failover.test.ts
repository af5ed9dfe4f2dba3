import type pg from 'pg';
import { expect, test } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { ACCEPT_TIMELINE, startFailoverPair } from '../source/failover-pair.ts';
import { Counted, EFFECT_TABLE, type Effect } from './counted.ts';
import { until } from './kit.ts';
import { openPool } from '../servers/pool.ts';

/** Publishes the numbers of a key and appends them, in the place of a relay. */
async function publish(
  pool: pg.Pool,
  connectionString: string,
  key: string,
  numbers: readonly number[],
): Promise<void> {
  const client = await pool.connect();
  await client.query('begin');
  const events = numbers.map((n) => Counted({ key, n }));
  await createOutbox().publish(client, events);
  const { rows } = await client.query<{ position: string }>(
    'select position from tailrace.outbox where message_id = any($1) order by position',
    [events.map(({ id }) => id)],
  );
  await client.query('commit');
  client.release();
  const log = postgresLog({ connectionString, partitions: 1 });
  const writer = await log.acquireWriter({ holder: 'test', leaseMs: 60_000, signal: new AbortController().signal });
  const { topic } = events[0] ?? {};
  if (topic === undefined) return;
  await writer.partitionCount(topic);
  await writer.append({
    appends: [{ topic, partition: 0, ids: rows.map((row) => Number(row.position)) }],
    progress: key,
  });
  await log.close();
}

async function effectsOf(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query<Effect>('select key, n from effect order by id');
  return rows.map(({ key, n }) => `${key}${n}`);
}

test('a consumer that lives through the promotion of a standby that was behind goes on from what the standby has', async () => {
  await using pair = await startFailoverPair();
  const { primary, promoted, promotedUrl, connectionString } = pair;
  await primary.pool.query(EFFECT_TABLE);
  const database = openPool({ connectionString, max: 6 });
  const log = postgresLog({ connectionString });
  const consumer = createConsumer({
    log,
    group: 'counting',
    database,
    concurrency: 2,
    leaseMs: 300_000,
    heartbeatMs: 50,
    cursorIntervalMs: 50,
  });
  consumer.on(Counted, async ({ payload: { key, n } }, { tx }) => {
    await tx.query(`insert into effect (key, n, member) values ($1, $2, 'one')`, [key, n]);
  });
  await consumer.start();

  await publish(primary.pool, primary.connectionString, 'a', [1, 2, 3]);
  await until(async () => (await effectsOf(promoted)).length === 3);
  await pair.fallBehind();
  await publish(primary.pool, primary.connectionString, 'gone', [1, 2, 3]); // the standby never hears of it
  await until(async () => (await effectsOf(primary.pool)).length === 6);
  await until(() => consumer.status().assignments[0]?.nextOffset === 6n);

  await pair.promote();
  await promoted.query(ACCEPT_TIMELINE);
  await publish(promoted, promotedUrl, 'b', [1, 2, 3]); // at the offsets of what is gone
  await until(async () => (await effectsOf(promoted)).length >= 6);
  await until(() => consumer.status().assignments[0]?.nextOffset === 6n);
  expect(await effectsOf(promoted)).toEqual(['a1', 'a2', 'a3', 'b1', 'b2', 'b3']);

  await consumer.stop();
  await log.close();
  await database.end();
});
