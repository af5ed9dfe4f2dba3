import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { expect, it } from 'vitest';
import { uuidV7 } from '../../src/base/uuid.ts';
import { seekGroup } from '../../src/consumer/index.ts';
import { createTestDatabase } from '../servers/test-database.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, Stream, until } from './kit.ts';

const WEEK_MS = 7 * 24 * 3600 * 1000;
const thisWeek = Math.floor(Date.now() / WEEK_MS);

/** An id of so many weeks ago. */
const idOf = (weeksAgo: number): string => uuidV7((thisWeek - weeksAgo) * WEEK_MS + 1_000);

/** A partition for the ids of so many weeks ago, as there is one for those of now. */
async function makeWeek(pool: pg.Pool, weeksAgo: number): Promise<string> {
  const week = thisWeek - weeksAgo;
  const bound = (n: number): string => `${(n * WEEK_MS).toString(16).padStart(12, '0')}${'0'.repeat(20)}`;
  await pool.query(
    `create table tailrace.processed_message_w${week} partition of tailrace.processed_message
      for values from ('${bound(week)}') to ('${bound(week + 1)}')`,
  );
  return `processed_message_w${week}`;
}

const handle = (client: pg.Pool | pg.PoolClient, id: string, group = 'g') =>
  client.query('insert into tailrace.processed_message values ($1, $2, 1) on conflict do nothing', [id, group]);

async function call(pool: pg.Pool, name: string, lockTimeout = '60s'): Promise<number | undefined> {
  const client = await pool.connect();
  try {
    await client.query(`begin; set local lock_timeout = '${lockTimeout}'`);
    const { rows } = await client.query<{ count: number }>(`select tailrace.${name}() as count`);
    await client.query('commit');
    return rows[0]?.count;
  } finally {
    await client.query('rollback'); // of what failed, so that its locks are free from here on
    client.release();
  }
}

it('what was handled in an old week leaves once every group is past it, and nothing that came later', async () => {
  await using database = await createTestDatabase();
  const { pool } = database;
  const week = await makeWeek(pool, 5);
  const [early, late, stray, foreign, current] = [idOf(5), idOf(5), idOf(9), randomUUID(), uuidV7()];
  const left = async (): Promise<string[]> => {
    const { rows } = await pool.query<{ id: string }>('select message_id::text as id from tailrace.processed_message');
    return rows.map(({ id }) => id).sort();
  };
  for (const id of [early, stray, foreign, current]) await handle(pool, id);
  await pool.query(`insert into tailrace.consumer_group (name) values ('g'), ('h')`);
  await pool.query(
    `insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset, reach, epoch)
      values ('g', 't', 0, 5, 8, 1), ('g', 't', 1, 8, 8, 1), ('g', 'never owned', 0, 0, 0, 0), ('h', 't', 0, 5, 0, 1)`,
  );

  const handler = await pool.connect(); // handles messages of now, and of a foreign id, all the while
  await handler.query('begin');
  await handle(handler, uuidV7());
  await handle(handler, randomUUID());

  await pool.query(`update tailrace.consumer_group set dedupe_window_ms = ${10 * WEEK_MS} where name = 'h'`);
  expect(await call(pool, 'expire_processed_messages')).toBe(0);
  expect((await pool.query('select from tailrace.processed_round')).rowCount).toBe(0); // 'h' wants to know for longer
  await pool.query(`update tailrace.consumer_group set dedupe_window_ms = null`);
  expect(await call(pool, 'expire_processed_messages')).toBe(0);
  const holds = 'select group_name, topic, partition, until_offset from tailrace.processed_hold order by 1';
  expect((await pool.query(holds)).rows).toEqual([
    { group_name: 'g', topic: 't', partition: 0, until_offset: '8' },
    { group_name: 'h', topic: 't', partition: 0, until_offset: '9223372036854775807' }, // it does not say how far it was
  ]);
  await handle(pool, late);
  await handle(pool, early); // a second time: nothing changes

  expect(await call(pool, 'expire_processed_messages')).toBe(0);
  await pool.query(`update tailrace.consumer_cursor set next_offset = 8 where group_name = 'g'`);
  await pool.query(`update tailrace.processed_hold set until_offset = 5 where group_name = 'h'`);
  expect(await left()).toEqual([early, late, stray, foreign, current].sort());
  expect(await call(pool, 'expire_processed_messages')).toBe(1);
  expect(await left()).toEqual([late, foreign, current].sort());
  expect(await call(pool, 'drop_processed_partitions')).toBe(0); // 'late' is in it

  await pool.query(`delete from tailrace.consumer_group where name = 'h'`);
  expect(await call(pool, 'expire_processed_messages')).toBe(0);
  expect(await call(pool, 'expire_processed_messages')).toBe(1);
  await expect(call(pool, 'drop_processed_partitions', '1ms')).rejects.toMatchObject({ code: '55P03' }); // the handler
  await handler.query('rollback');
  handler.release();
  expect(await call(pool, 'drop_processed_partitions')).toBe(1);
  expect((await pool.query('select to_regclass($1) as it', [`tailrace.${week}`])).rows).toEqual([{ it: null }]);
  expect(await left()).toEqual([foreign, current].sort());
  await handle(pool, late); // is known again, in the default partition
  expect(await left()).toEqual([late, foreign, current].sort());
});

it('a consumer lets old weeks leave, and what it replays later is told as a replay all the same', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  const week = await makeWeek(stream.pool, 4);
  await stream.pool.query(
    `insert into tailrace.outbox (message_id, topic, key, type, payload) values ($1, 'numbers', 'a', 'Counted', $2)`,
    [idOf(4), { key: 'a', n: 1 }],
  );
  await stream.publish(...counts(['a'], 2, 2));
  const first = stream.consumer({ dedupeWindowMs: false }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
  await first.start();
  await stream.untilEffects(3);
  await first.stop();

  const seen: string[] = [];
  const second = stream
    .consumer({ dedupeWindowMs: 2 * WEEK_MS })
    .on(Counted, ({ payload: { n } }, { isReplay }) => void seen.push(`${n} ${isReplay}`));
  await second.start();
  await until(async () => {
    const [row] = await stream.rows<{ it: string | null }>('select to_regclass($1) as it', [`tailrace.${week}`]);
    return row?.it === null;
  });
  expect(await stream.rows('select dedupe_window_ms from tailrace.consumer_group')).toEqual([
    { dedupe_window_ms: `${2 * WEEK_MS}` },
  ]);
  expect(await stream.rows('select count(*)::int as n from tailrace.processed_message')).toEqual([{ n: 2 }]);
  await seekGroup({ log: stream.log, database: stream.pool, group: 'counting', topic: 'numbers', to: 'earliest' });
  await until(() => seen.length >= 3);
  expect(seen).toEqual(['1 true', '2 true', '3 true']);
});
