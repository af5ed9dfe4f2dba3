import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import type { FetchPosition, LogRecord, LogWriter, PostgresLog } from '../../../src/broker/postgres/index.ts';
import { openMaintenanceClient } from '../../../src/broker/postgres/maintenance/maintenance.ts';
import { maintain } from '../../../src/broker/postgres/maintenance/round.ts';
import { acquire, createLogFixture, type LogFixture } from './fixture.ts';

const ROWS = 10;

let fixture: LogFixture;
let log: PostgresLog;
let writer: LogWriter;
let client: pg.Client;

/** An outbox with partitions of ten rows. */
beforeAll(async () => {
  fixture = await createLogFixture();
  const { pool } = fixture;
  await pool.query('drop table tailrace.outbox_1');
  for (let low = 1; low <= 10 * ROWS; low += ROWS) {
    await pool.query(`create table tailrace.outbox_${low} (like tailrace.outbox including defaults including constraints including indexes);
      alter table tailrace.outbox attach partition tailrace.outbox_${low} for values from (${low}) to (${low + ROWS})`);
  }
  log = fixture.openLog({ partitions: 2, maintenance: false });
  writer = await acquire(log);
  await writer.partitionCount('orders');
  client = await openMaintenanceClient(fixture.database.connectionString);
});

afterAll(async () => {
  await client.end();
  await fixture[Symbol.asyncDispose]();
});

const round = (keepOutboxMs = 0, waitMs = 60_000) =>
  maintain(client, { schema: 'tailrace', holder: 'test', keepOutboxMs, waitMs, logger: silentLogger });

/** The rows of one partition, of all kinds. */
async function fill(by: pg.Pool | pg.ClientBase = fixture.pool): Promise<number[]> {
  const { rows } = await by.query<{ position: string }>(
    `insert into tailrace.outbox (message_id, topic, key, type, kind, headers, payload, payload_bytes, occurred_at, expires_at, deliver_at)
      select gen_random_uuid(), 'orders', case n % 3 when 0 then null when 1 then '' else 'schlüssel 🗝' || n end, 'Type' || n,
        (array['event', 'command', 'document'])[n % 3 + 1], ('{"h":"\\u2028' || n || '"}')::json,
        case when n % 2 = 0 then ('{"b":1.10,  "n":' || n || '}')::json end,
        case when n % 2 = 1 then '\\x00ff80'::bytea || convert_to(n::text, 'UTF8') end,
        timestamptz '2026-02-03 04:05:06.789499Z' + n * interval '0.000501 seconds',
        case n when 4 then 'infinity'::timestamptz when 5 then '2030-01-01T00:00:00.000001Z' end,
        case when n > 7 then timestamptz '2026-02-03 04:05:06.0005Z' end
      from generate_series(1, ${ROWS}) n returning position`,
  );
  return rows.map(({ position }) => Number(position));
}

async function append(parts: readonly (readonly number[])[], isCovered = true): Promise<void> {
  const { rows } = await fixture.pool.query<{ snapshot: string }>('select pg_current_snapshot()::text as snapshot');
  await writer.append({
    appends: parts.map((ids, partition) => ({ topic: 'orders', partition, ids })),
    progress: 'p',
    ...(isCovered && { checkpoint: `${rows[0]!.snapshot} ` }),
  });
}

async function partitionsLeft(): Promise<number[]> {
  const { rows } = await fixture.pool.query<{ low: number }>(
    `select substring(relname from '_(\\d+)$')::int as low from pg_class
      where relname ~ '^outbox_\\d+$' and relnamespace = 'tailrace'::regnamespace and relkind = 'r' order by 1`,
  );
  return rows.map(({ low }) => low).filter((low) => low <= 9 * ROWS);
}

/** A fetch begins with any of its partitions. */
const sorted = (records: LogRecord[]): LogRecord[] => records.sort((a, b) => a.partition - b.partition);

const everything = async (): Promise<LogRecord[]> => {
  const ends = await log.ends('orders');
  const positions = ends.map(({ partition, start }): FetchPosition => ({ topic: 'orders', partition, offset: start }));
  return sorted(await log.fetch(positions, { maxRecords: 10_000 }));
};

it('packs what the log still needs, and lets the partition go: readers see the same bytes all along', async () => {
  const first = await fill();
  await append([first.slice(0, 4), first.slice(4, 7)]);
  await append([first.slice(7, 8)]);
  const second = await fill();
  await append([[...first.slice(8), ...second.slice(0, 3)], second.slice(3)]);
  const before = await everything();
  expect(before).toHaveLength(2 * ROWS);
  const times = await fixture.pool.query<{ at: Date }>('select distinct appended_at as at from tailrace.log_entry');
  const moments = times.rows.flatMap(({ at }) => [at, new Date(at.getTime() + 1)]);
  const placesBefore = await Promise.all(moments.map((at) => log.offsetsAt('orders', at)));

  expect(await round(3_600_000)).toMatchObject({ isOwner: true, waiting: 0 }); // sealed, and not old enough
  expect(await partitionsLeft()).toContain(1);
  await expect(
    fixture.pool.query(
      `insert into tailrace.outbox (position, message_id, topic, type, payload) overriding system value
        values (5, gen_random_uuid(), 'orders', 'Late', '1')`,
    ),
  ).rejects.toMatchObject({ code: '40001' });

  const readings: LogRecord[][] = [];
  const over = new AbortController();
  const result = round().finally(() => over.abort());
  while (!over.signal.aborted) readings.push(await everything());
  for (const reading of readings) expect(reading).toEqual(before);
  expect(await result).toEqual({
    ...{ isOwner: true, waiting: 0, reason: undefined },
    ...{ packedRecords: 2 * ROWS, droppedPartitions: 2, deletedEntries: 0, compactedRecords: 0 },
  });
  expect(await partitionsLeft()).toEqual([21, 31, 41, 51, 61, 71, 81]);
  expect(await fixture.pool.query('select from tailrace.outbox_sealed')).toMatchObject({ rowCount: 0 });

  expect(await everything()).toEqual(before);
  expect(await Promise.all(moments.map((at) => log.offsetsAt('orders', at)))).toEqual(placesBefore);
  for (const offset of [0n, 1n, 5n, 9n]) {
    const found = await log.fetch([{ topic: 'orders', partition: 0, offset }], { maxRecords: 3 });
    expect(found).toEqual(before.filter((one) => one.partition === 0 && one.offset >= offset).slice(0, 3));
  }
  const byBytes = await log.fetch([{ topic: 'orders', partition: 1, offset: 2n }], { maxBytes: 1 });
  expect(byBytes).toEqual(before.filter((one) => one.partition === 1 && one.offset === 2n));
});

it('packs records beside those of the outbox, and the log goes on behind them', async () => {
  const before = await everything();
  const ids = await fill(); // 21 to 30
  await append([ids.slice(0, 5), ids.slice(5)]);
  const all = await everything();
  expect(all).toHaveLength(before.length + ROWS);
  const few = sorted(
    await log.fetch(
      [0, 1].map((partition) => ({ topic: 'orders', partition, offset: 3n })),
      { maxRecords: 8 },
    ),
  );
  expect(few.map(({ partition, offset }) => `${partition}/${offset}`)).toEqual(
    [0, 1].flatMap((partition) => [3, 4, 5, 6].map((offset) => `${partition}/${offset}`)),
  );
});

it('waits for who writes, for a checkpoint, for dead letters, and for who reads; then goes on where it was', async () => {
  const { pool } = fixture;
  expect(await round()).toMatchObject({ waiting: 0 }); // 21 to 30 leave
  expect(await partitionsLeft()).toEqual([31, 41, 51, 61, 71, 81]);
  const writing = await pool.connect();
  await writing.query('begin');
  const ids = await fill(writing); // 31 to 40: full, and not committed
  expect(await round(0, 300)).toMatchObject({ waiting: 1, reason: 'a transaction that writes to it is open' });
  await writing.query('commit');
  writing.release();

  expect(await round()).toMatchObject({ waiting: 1, reason: 'the relay has yet to store a checkpoint behind it' });
  await append([ids.slice(0, 9)], false);
  await pool.query(
    `insert into tailrace.relay_dead_letter (position, seq, topic, reason, error) values ($1, 1, 'orders', 'x', 'x')`,
    [ids[9]],
  );
  await append([]);
  expect(await round()).toMatchObject({ waiting: 1, reason: 'dead letters of the relay are in it' });
  await pool.query('delete from tailrace.relay_dead_letter');
  const before = await everything();

  const reading = await pool.connect();
  await reading.query('begin; select from tailrace.outbox limit 1');
  expect(await round(0, 300)).toMatchObject({ waiting: 1, reason: 'a transaction that reads the outbox is open' });
  const pending = await pool.query(`select from pg_inherits where inhdetachpending`);
  expect(pending.rowCount).toBe(1); // as after an interruption
  await pool.query('select tailrace.ensure_outbox_partitions(2)'); // nobody waits for it to make partitions
  expect(await everything()).toEqual(before);
  expect(await round(0, 300)).toMatchObject({ waiting: 1, reason: 'a transaction that reads the outbox is open' });
  await reading.query('commit');
  reading.release();
  expect(await round()).toMatchObject({ waiting: 0, reason: undefined });
  expect(await partitionsLeft()).toEqual([41, 51, 61, 71, 81]);
  expect(await everything()).toEqual(before);
});

it('removes nothing by the checkpoint of another cluster', async () => {
  const { pool } = fixture;
  const stored = await pool.query<{ seq: string; checkpoint: string }>(
    'select seq, checkpoint from tailrace.relay_batch where checkpoint is not null order by seq desc limit 1',
  );
  const [{ seq, checkpoint }] = stored.rows as [{ seq: string; checkpoint: string }];
  const left = await partitionsLeft();
  await fill(); // 41 to 50: by that checkpoint all of them are in the log
  const restore = `update tailrace.relay_batch set checkpoint = $2 where seq = $1`;
  await pool.query(restore, [seq, '1000000000:1000000000: ']);
  await expect(round()).rejects.toMatchObject({
    code: 'WRONG_CLUSTER',
    message: expect.stringContaining('1000000000'),
  });
  await pool.query(restore, [seq, checkpoint]);
  await pool.query(`update tailrace.relay_lease set system_identifier = 'x' || system_identifier`);
  await expect(round()).rejects.toMatchObject({ code: 'WRONG_CLUSTER' });
  await pool.query(`update tailrace.relay_lease set system_identifier = ltrim(system_identifier, 'x')`);
  expect(await partitionsLeft()).toEqual(left);
  const held = await pool.query('select position from tailrace.outbox where position between 41 and 50');
  expect(held.rowCount).toBe(ROWS);
});

it('goes on wherever it was interrupted: detached and not dropped, dropped and not forgotten', async () => {
  const { pool } = fixture;
  await append([Array.from({ length: ROWS }, (_, n) => 41 + n)]);
  const before = await everything();
  await pool.query(`insert into tailrace.outbox_sealed (name, low, high) values ('outbox_7', 7, 8)`); // dropped long ago
  const inTheWay = await pool.connect();
  await inTheWay.query('begin; select from tailrace.outbox_41 limit 1'); // it is detached, and cannot be dropped
  const interrupted = await round(0, 300);
  expect(interrupted).toMatchObject({ waiting: 1 });
  await inTheWay.query('commit');
  inTheWay.release();
  expect(await everything()).toEqual(before);
  expect(await round()).toMatchObject({ waiting: 0 });
  expect(await partitionsLeft()).toEqual([51, 61, 71, 81]);
  expect(await everything()).toEqual(before);
  const { rows } = await pool.query('select holder, is_owner, waiting, reason from tailrace.log_maintenance');
  expect(rows).toEqual([{ holder: 'test', is_owner: true, waiting: 0, reason: null }]);
});

it('puts a partition back that got rows after it was sealed', async () => {
  const { pool } = fixture;
  const ids = await fill(); // 51 to 60
  await append([ids]);
  await round(3_600_000);
  await pool.query(`alter table tailrace.outbox detach partition tailrace.outbox_51;
    alter table tailrace.outbox_51 disable trigger refuse_sealed; update tailrace.outbox_51 set tx = pg_current_xact_id()::text::bigint + 1000`);
  expect(await round()).toMatchObject({ reason: 'it got rows after it was sealed' });
  expect(await partitionsLeft()).toContain(51);
  const attached = await pool.query(`select from pg_inherits where inhrelid = 'tailrace.outbox_51'::regclass`);
  expect(attached.rowCount).toBe(1);
});

it('tells a relay whose checkpoint is gone what is packed, as of rows that the outbox still has', async () => {
  await fixture.pool.query('update tailrace.relay_batch set checkpoint = null');
  await writer.release();
  const next = await acquire(log);
  const named = await fixture.pool.query(`select from tailrace.log_entry where packed is not null`);
  expect(named.rowCount).toBeGreaterThan(0);
  const isDeadLetter = 40;
  const appended = Array.from({ length: 6 * ROWS }, (_, n) => n + 1).filter((position) => position !== isDeadLetter);
  expect([...(await next.appendedSinceCheckpoint())]).toEqual(appended);
  await next.release();
});
