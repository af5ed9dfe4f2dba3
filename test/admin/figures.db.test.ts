import { expect, it } from 'vitest';
import { readFigures } from '../../src/admin/figures.ts';
import { FiguresWatch } from '../../src/admin/figures-watch.ts';
import { Secret } from '../../src/base/secret.ts';
import { postgresLog } from '../../src/broker/postgres/postgres-log.ts';
import { createRelay } from '../../src/relay/relay.ts';
import { pollingSource } from '../../src/source/polling/polling-source.ts';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';

async function publish({ pool }: TestDatabase, count: number): Promise<void> {
  await pool.query(
    `select tailrace.publish('orders', i::text, 'OrderPlaced', '{}') from generate_series(1, $1::int) i`,
    [count],
  );
}

async function figuresOf({ pool, name }: TestDatabase) {
  const client = await pool.connect();
  try {
    return await readFigures(client, { schema: 'tailrace', slot: name });
  } finally {
    client.release();
  }
}

async function relayed(database: TestDatabase, mode: 'wal' | 'polling', count: number): Promise<void> {
  const { connectionString, name } = database;
  const log = postgresLog({ connectionString });
  const source = mode === 'wal' ? walSource({ connectionString, slot: name }) : pollingSource({ connectionString });
  await using relay = createRelay({ source, log });
  await relay.start();
  await expect.poll(() => relay.status().appended, { timeout: 60_000 }).toBe(count);
  await expect.poll(() => relay.status().source?.mode, { timeout: 60_000 }).toBe(mode);
  await relay.stop();
  await log.close();
}

it.each(['wal', 'polling'] as const)('counts what is committed and not in the log, in %s mode', async (mode) => {
  await using database = await createTestDatabase();
  expect(await figuresOf(database)).toMatchObject({ lagMessages: 0, lagSeconds: 0, slotRetainedBytes: undefined });
  await publish(database, 20);
  const behind = await figuresOf(database);
  expect(behind.lagMessages).toBe(20);
  expect(behind.lagSeconds).toBeGreaterThan(0);

  await relayed(database, mode, 20);
  const level = await figuresOf(database);
  expect(level).toMatchObject({ lagMessages: 0, lagSeconds: 0 });
  expect(level.slotRetainedBytes).toEqual(mode === 'wal' ? expect.any(Number) : undefined);

  await publish(database, 3);
  expect((await figuresOf(database)).lagMessages).toBe(3);
  await relayed(database, mode, 3);
  expect((await figuresOf(database)).lagMessages).toBe(0);
});

it('counts what the relay could not route, and not as a lag', async () => {
  await using database = await createTestDatabase();
  const { connectionString } = database;
  const log = postgresLog({ connectionString, createTopics: false });
  await using relay = createRelay({ source: pollingSource({ connectionString }), log });
  await relay.start();
  await publish(database, 5);
  await expect.poll(() => relay.status().deadLettered, { timeout: 60_000 }).toBe(5);
  expect(await figuresOf(database)).toMatchObject({ lagMessages: 0, lagSeconds: 0, relayDeadLetters: 5 });
  await relay.stop();
  await log.close();
});

it('finds a slot by the name that it has if none is given', async () => {
  await using database = await createTestDatabase();
  const { pool, connectionString } = database;
  const log = postgresLog({ connectionString });
  await using relay = createRelay({ source: walSource({ connectionString }), log });
  await relay.start();
  await expect.poll(() => relay.status().source?.mode, { timeout: 60_000 }).toBe('wal');
  await relay.stop();
  await log.close();
  await pool.query("select pg_logical_emit_message(true, 'x', repeat('x', 100000))");
  const client = await pool.connect();
  const { slotRetainedBytes } = await readFigures(client, { schema: 'tailrace' });
  client.release();
  expect(slotRetainedBytes).toBeGreaterThan(100_000);
});

it('does not count what is not committed', async () => {
  await using database = await createTestDatabase();
  const writer = await database.pool.connect();
  await writer.query('begin');
  await writer.query(`select tailrace.publish('orders', null, 'OrderPlaced', '{}')`);
  expect((await figuresOf(database)).lagMessages).toBe(0);
  await writer.query('commit');
  writer.release();
  expect((await figuresOf(database)).lagMessages).toBe(1);
});

it('tells of groups and of what they have set aside', async () => {
  await using database = await createTestDatabase();
  const { pool } = database;
  await pool.query(`
    insert into tailrace.log_topic (name, partitions) values ('orders', 2), ('empty', 1);
    insert into tailrace.log_partition (topic, partition) values ('orders', 0), ('orders', 1), ('empty', 0);
    insert into tailrace.log_entry (partition, base, count, ids, seq, appended_at)
      values (1, 0, 3, '{1,2,3}', 1, now() - interval '1 hour'), (1, 3, 2, '{4,5}', 2, now() - interval '10 minutes'),
             (2, 0, 1, '{6}', 2, now());
    insert into tailrace.consumer_group (name) values ('billing'), ('mail');
    insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset)
      values ('billing', 'orders', 0, 4), ('billing', 'orders', 1, 1), ('mail', 'orders', 0, 2), ('mail', 'empty', 0, 0);
    insert into tailrace.parked_message
      (group_name, topic, partition, record_offset, message_id, type, kind, headers, payload, occurred_at, dead, reason, attempts)
      select 'mail', 'orders', 0, i, gen_random_uuid(), 'T', 'event', '{}', '{}', now(), i < 3, 'HANDLER_FAILED', 3
      from generate_series(1, 3) i`);
  await pool.query(`
    insert into tailrace.parked_message
      (group_name, topic, partition, record_offset, message_id, type, key, kind, headers, payload, occurred_at, dead, reason, attempts, blocks, due_at)
      select 'wait', 'orders', 0, i, gen_random_uuid(), 'T', 'k' || i % 2, 'event', '{}', '{}', now(), false, 'HANDLER_FAILED', 3,
        true, case when i < 5 then now() + interval '1 hour' when i = 5 then now() - interval '1 hour' end
      from generate_series(1, 6) i`);
  expect((await figuresOf(database)).waiting).toEqual([{ group: 'wait', parkedKeys: 2, timers: 4 }]);
  await pool.query(`delete from tailrace.parked_message where group_name = 'wait'`);
  const { groups, parked, waiting } = await figuresOf(database);
  expect(waiting).toEqual([]);
  expect(groups).toEqual([
    { group: 'billing', topic: 'orders', partition: 0, messages: 1, seconds: expect.closeTo(600, -2) },
    { group: 'billing', topic: 'orders', partition: 1, messages: 0, seconds: 0 },
    { group: 'mail', topic: 'empty', partition: 0, messages: 0, seconds: 0 },
    { group: 'mail', topic: 'orders', partition: 0, messages: 3, seconds: expect.closeTo(3_600, -2) },
  ]);
  expect(parked).toEqual([
    { group: 'mail', isDead: false, count: 1 },
    { group: 'mail', isDead: true, count: 2 },
  ]);
});

it('a watch reads again and again, also after its connection was cut', async () => {
  await using database = await createTestDatabase();
  const { pool, connectionString } = database;
  await using watch = new FiguresWatch({
    databaseUrl: new Secret(connectionString),
    schema: 'tailrace',
    intervalMs: 10,
  });
  expect(watch.current().figures).toBeUndefined();
  await watch.start();
  await expect.poll(() => watch.current().figures?.lagMessages).toBe(0);
  await pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tailrace figures' and datname = current_database()`,
  );
  await publish(database, 2);
  await expect.poll(() => watch.current().figures?.lagMessages, { timeout: 60_000 }).toBe(2);
  await pool.query('drop table tailrace.parked_message');
  await expect.poll(() => String(watch.current().error)).toMatch(/parked_message/);
  expect(watch.current().figures?.lagMessages).toBe(2);
});
