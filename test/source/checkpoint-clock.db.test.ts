import { expect, test } from 'vitest';
import { parseLsn } from '../../src/base/lsn.ts';
import { Snapshot } from '../../src/postgres/snapshot.ts';
import { CheckpointClock } from '../../src/source/wal/checkpoint-clock.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { publish } from './harness.ts';

async function snapshotOf(database: TestDatabase): Promise<Snapshot> {
  const { rows } = await database.pool.query<{ now: string }>('select pg_current_snapshot()::text as now');
  return Snapshot.parse(rows[0]?.now ?? '');
}

/** The rows as a stream that has come to the end of the WAL brings them; without the first `leftOut`. */
async function streamed(database: TestDatabase, leftOut: number) {
  const { rows } = await database.pool.query<{ position: string; tx: string }>(
    'select position, tx from tailrace.outbox order by position offset $1',
    [leftOut],
  );
  const end = await database.pool.query<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
  const ids = rows.map(({ position }) => Number(position));
  return {
    rows: { ids, topics: ids.map(() => 'orders'), keyHashes: ids.map(() => 1) },
    xids: rows.map(({ tx }) => Number(tx)),
    end: parseLsn(end.rows[0]?.lsn ?? ''),
  };
}

test('a checkpoint holds where every row came, also while the next one is asked for again and again', async () => {
  await using database = await createTestDatabase();
  const client = await database.pool.connect();
  const clock = new CheckpointClock(client, 'tailrace', await snapshotOf(database), []);
  await publish(database, 10);
  const ticks = [clock.tick(), clock.tick()];
  await ticks[0];
  const batch = await streamed(database, 0);
  const checkpoint = clock.append(batch);
  expect(checkpoint?.beyond).toEqual([]);
  await Promise.all(ticks);
  await clock.tick();
  expect(clock.append(await streamed(database, 10))?.beyond).toEqual([]);
  client.release();
});

test('a row that did not come ends the reading', async () => {
  await using database = await createTestDatabase();
  const client = await database.pool.connect();
  const clock = new CheckpointClock(client, 'tailrace', await snapshotOf(database), []);
  await publish(database, 10);
  await clock.tick();
  const batch = await streamed(database, 1);
  expect(() => clock.append(batch)).toThrow(/Of 10 new messages in the outbox, 9 came by the WAL/);
  client.release();
});

test('where no checkpoint is due, rows that are to come are awaited all the same, and nothing else', async () => {
  await using database = await createTestDatabase();
  const client = await database.pool.connect();
  const clock = new CheckpointClock(client, 'tailrace', await snapshotOf(database), []);
  await clock.tick(false);
  expect(clock.awaits).toBeUndefined();
  await publish(database, 1);
  await clock.tick(false);
  expect(clock.awaits).toBeDefined();
  const batch = await streamed(database, 1);
  expect(() => clock.append(batch)).toThrow(/Of 1 new messages in the outbox, 0 came by the WAL/);
  client.release();
});

test('a row of the log whose partition has left the outbox is not waited for', async () => {
  await using database = await createTestDatabase();
  const client = await database.pool.connect();
  await publish(database, 1);
  const left = 2 ** 40; // of no partition that is there
  const clock = new CheckpointClock(client, 'tailrace', await snapshotOf(database), [1, left]);
  await clock.tick();
  expect(clock.awaits).toBeDefined();

  const hidden = await database.pool.connect();
  await hidden.query(`begin; select tailrace.publish('orders', 'k', 'Counted', '1')`);
  const waiting = new CheckpointClock(client, 'tailrace', await snapshotOf(database), [1, 2, left]);
  await waiting.tick();
  expect(waiting.awaits).toBeUndefined();
  await hidden.query('commit');
  await waiting.tick();
  expect(waiting.awaits).toBeDefined();
  hidden.release();
  client.release();
});
