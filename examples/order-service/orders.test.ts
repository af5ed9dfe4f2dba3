import { Kysely, PostgresDialect } from 'kysely';
import { expect, test } from 'vitest';
// #region testing
import { startTestPipeline } from 'tailrace/testing';
import { type Tables, billing, placeOrder } from './orders.ts';

test('an order has one invoice', async () => {
  await using pipeline = await startTestPipeline({
    consumers: ({ log, pool }) => [billing(log, pool)],
  });
  const { pool, outbox } = pipeline;
  await pool.query('create table orders (id text primary key, total int)');
  await pool.query('create table invoice (order_id text, total int)');
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });

  await placeOrder(db, outbox, { id: 'A-1', total: 42 });
  await pipeline.drained({ timeoutMs: 20_000 }); // in the log, and handled by every group

  expect(await db.selectFrom('invoice').selectAll().execute()).toEqual([{ order_id: 'A-1', total: 42 }]);
  expect(await pipeline.deadLetters()).toEqual([]);
});
// #endregion

test('an order that is refused has none', async () => {
  await using pipeline = await startTestPipeline({
    consumers: ({ log, pool }) => [billing(log, pool)],
  });
  const { pool, outbox } = pipeline;
  await pool.query('create table orders (id text primary key, total int check (total < 1000))');
  await pool.query('create table invoice (order_id text, total int)');
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });

  await expect(placeOrder(db, outbox, { id: 'A-2', total: 5000 })).rejects.toThrow(/check constraint/);
  await pipeline.drained({ timeoutMs: 20_000 });

  expect(await db.selectFrom('invoice').selectAll().execute()).toEqual([]);
});
