import fc from 'fast-check';
import pg from 'pg';
import { describe, expect, it } from 'vitest';
import type { FetchPosition, LogRecord } from '../../../src/broker/postgres/index.ts';
import { fetchSql } from '../../../src/broker/postgres/fetch-statement.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { PLAN_SETTINGS, ReadPool } from '../../../src/broker/postgres/read-pool.ts';
import { acquire, appendTo, createLogFixture, insertRows, payloadsOf } from './fixture.ts';

const at = (partition: number, offset: number | bigint = 0): FetchPosition => ({
  topic: 'orders',
  partition,
  offset: BigInt(offset),
});

function offsetsOf(records: readonly LogRecord[]): Record<number, number[]> {
  const all: Record<number, number[]> = {};
  for (const { partition, offset } of records) (all[partition] ??= []).push(Number(offset));
  return all;
}

describe('fetch', () => {
  it('gives what was stored, unchanged', async () => {
    await using fixture = await createLogFixture();
    const writer = await acquire(fixture.openLog());
    await writer.partitionCount('orders');
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    const headers = '{"trace":"1","__proto__":"own","ünï":"\\u2028"}';
    const json = '{"b":1.10, "a":[12345678901234567890, "\\u00e9é\\\\"],\n "b":2}';
    const { rows } = await fixture.pool.query<{ position: string; message_id: string }>(
      `insert into tailrace.outbox (message_id, topic, key, type, kind, headers, payload, payload_bytes, occurred_at) values
        (gen_random_uuid(), 'orders', 'schlüssel 🗝', 'OrderPlaced', 'event', $1, $2, null, '2026-02-03T04:05:06.789Z'),
        (gen_random_uuid(), 'orders', null, 'Raw', 'document', '{}', null, $3, '1969-12-31T23:59:59.999Z'),
        (gen_random_uuid(), 'elsewhere', '', 'Empty', 'command', '{}', null, '', '9999-12-31T23:59:59.999Z'),
        (gen_random_uuid(), 'orders', 'k', 'Null', 'event', '{}', 'null', null, '2040-01-01T00:00:00.123Z')
        returning position, message_id`,
      [headers, json, bytes],
    );
    await appendTo(
      writer,
      2,
      rows.map(({ position }) => Number(position)),
    );
    const records = await fixture.openLog().fetch([at(2)]);
    const common = { topic: 'orders', partition: 2, headers: {}, payload: null, payloadBytes: null };
    expect(records).toEqual([
      {
        ...common,
        offset: 0n,
        messageId: rows[0]?.message_id,
        kind: 'event',
        type: 'OrderPlaced',
        key: 'schlüssel 🗝',
        headers: Object.fromEntries([
          ['trace', '1'],
          ['__proto__', 'own'],
          ['ünï', '\u2028'],
        ]),
        payload: json,
        occurredAt: new Date('2026-02-03T04:05:06.789Z'),
      },
      {
        ...common,
        offset: 1n,
        messageId: rows[1]?.message_id,
        kind: 'document',
        type: 'Raw',
        key: null,
        payloadBytes: bytes,
        occurredAt: new Date('1969-12-31T23:59:59.999Z'),
      },
      {
        ...common,
        offset: 2n,
        messageId: rows[2]?.message_id,
        kind: 'command',
        type: 'Empty',
        key: '',
        payloadBytes: Buffer.alloc(0),
        occurredAt: new Date('9999-12-31T23:59:59.999Z'),
      },
      {
        ...common,
        offset: 3n,
        messageId: rows[3]?.message_id,
        kind: 'event',
        type: 'Null',
        key: 'k',
        payload: 'null',
        occurredAt: new Date('2040-01-01T00:00:00.123Z'),
      },
    ]);
    expect(Object.getPrototypeOf(records[0]?.headers)).toBeNull();
  });

  it('gives the times from which and until which a message is good, never too early', async () => {
    await using fixture = await createLogFixture();
    const writer = await acquire(fixture.openLog());
    await writer.partitionCount('orders');
    const { rows } = await fixture.pool.query<{ position: string }>(
      `insert into tailrace.outbox (message_id, topic, type, payload, expires_at, deliver_at) values
        (gen_random_uuid(), 'orders', 'T', '1', 'infinity', '2040-01-01T00:00:00.123001Z'),
        (gen_random_uuid(), 'orders', 'T', '1', '2040-01-01T00:00:00.123Z', null) returning position`,
    );
    await appendTo(
      writer,
      0,
      rows.map(({ position }) => Number(position)),
    );
    const [early, late] = await fixture.openLog().fetch([at(0)]);
    expect(early).toMatchObject({ deliverAt: new Date('2040-01-01T00:00:00.124Z') });
    expect(early?.expiresAt?.getUTCFullYear()).toBe(9999);
    expect(late).toMatchObject({ expiresAt: new Date('2040-01-01T00:00:00.123Z') });
    expect(late).not.toHaveProperty('deliverAt');
  });

  it('gives any range of any layout of entries, in order, under any bounds', { timeout: 400_000 }, async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 3 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    const sizes = [[1, 7, 1, 30], [200], [2, 2, 2]];
    for (const [partition, entries] of sizes.entries()) {
      for (const size of entries) await appendTo(writer, partition, await fixture.insert(size));
    }
    const ends = sizes.map((entries) => entries.reduce((sum, size) => sum + size, 0));
    const arbitrary = fc.record({
      starts: fc.tuple(...ends.map((end) => fc.integer({ min: 0, max: end }))),
      maxRecords: fc.integer({ min: 1, max: 300 }),
      maxRecordsEach: fc.integer({ min: 1, max: 300 }),
      maxBytes: fc.integer({ min: 1, max: 5_000 }),
    });
    await fc.assert(
      fc.asyncProperty(arbitrary, async ({ starts, maxRecords, maxRecordsEach, maxBytes }) => {
        const records = await log.fetch(
          starts.map((start, partition) => at(partition, start)),
          { maxRecords, maxRecordsEach, maxBytes },
        );
        const left = starts.map((start, partition) => (ends[partition] ?? 0) - start);
        const bytes = records.reduce(
          (sum, { payload, key }) => sum + (payload?.length ?? 0) + (key?.length ?? 0) + 2,
          0,
        );
        expect(records.length).toBeLessThanOrEqual(maxRecords);
        expect(records.length > 0).toBe(left.some((count) => count > 0));
        expect(bytes <= maxBytes || records.length === 1).toBe(true);
        for (const [partition, offsets] of Object.entries(offsetsOf(records))) {
          const start = starts[Number(partition)] ?? 0;
          expect(offsets).toEqual(offsets.map((_, n) => start + n));
        }
        const counts = starts.map((_, partition) => offsetsOf(records)[partition]?.length ?? 0);
        const most = Math.max(...counts); // no partition is behind another by more than one, unless it has no more
        counts.forEach((count, partition) => expect(count >= most - 1 || count === left[partition]).toBe(true));
        expect(most).toBeLessThanOrEqual(maxRecordsEach);
      }),
      { numRuns: 150 },
    );
  });

  it('fills the room that short partitions leave', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 3 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    await appendTo(writer, 0, await fixture.insert(100));
    await appendTo(writer, 1, await fixture.insert(3));
    const records = await log.fetch([at(0), at(1), at(2)], { maxRecords: 50 });
    expect(records).toHaveLength(50);
    expect(offsetsOf(records)[1]).toEqual([0, 1, 2]);
  });

  it('passes no partition over for ever, however little room there is', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 4 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    for (let partition = 0; partition < 4; partition++) await appendTo(writer, partition, await fixture.insert(5));
    const seen = new Set<number>();
    for (let n = 0; n < 1_000 && seen.size < 4; n++) {
      const [record] = await log.fetch([at(0), at(1), at(2), at(3)], { maxRecords: 1 });
      seen.add(record!.partition);
    }
    expect(seen.size).toBe(4); // 1,000 fair choices among four miss one with a chance of 10^-124
  });

  it.each(['compressible', 'random'])(
    'holds no more than maxBytes of large %s messages, but at least one',
    async (kind) => {
      await using fixture = await createLogFixture();
      const log = fixture.openLog({ partitions: 2 });
      const writer = await acquire(log);
      await writer.partitionCount('orders');
      const text =
        kind === 'compressible'
          ? `repeat('x', 1000000)`
          : `(select string_agg(md5(random()::text), '') from generate_series(1, 31250))`;
      for (const partition of [0, 1]) {
        const { rows } = await fixture.pool.query<{ position: string }>(
          `insert into tailrace.outbox (message_id, topic, type, payload)
          select gen_random_uuid(), 'orders', 'Large', to_json(${text}) from generate_series(1, 4) returning position`,
        );
        await appendTo(
          writer,
          partition,
          rows.map(({ position }) => Number(position)),
        );
      }
      expect(await log.fetch([at(0), at(1)], { maxBytes: 2_500_000 })).toHaveLength(2);
      expect(await log.fetch([at(0), at(1)], { maxBytes: 1 })).toHaveLength(1);
      expect(await log.fetch([at(0), at(1)])).toHaveLength(1); // a payload of 1,000,002 bytes passes the default alone
    },
  );

  it('refuses what is not in the log', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 2 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    await appendTo(writer, 0, await fixture.insert(3));
    expect(await log.fetch([at(0, 3), at(1, 0)])).toEqual([]);
    await expect(log.fetch([at(0, 4)])).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' });
    await expect(log.fetch([at(0, 0), at(1, 1)])).rejects.toThrow(/offset 1 in orders partition 1.*offset 0/);
    await expect(log.fetch([at(0, -1)])).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' });
    await expect(log.fetch([at(2)])).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC' });
    await expect(log.fetch([at(-1)])).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC' });
    await expect(log.fetch([{ ...at(0), topic: 'others' }])).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC' });
    await expect(log.fetch([at(0)], { maxBytes: 0 })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(log.fetch([at(0)], { maxRecords: Number.NaN })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    expect(await log.fetch([])).toEqual([]);
  });

  it('says so where the beginning of a partition was removed', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 1 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    await appendTo(writer, 0, await fixture.insert(3));
    await appendTo(writer, 0, await fixture.insert(3));
    await fixture.pool.query('delete from tailrace.log_entry where base = 0');
    await expect(log.fetch([at(0, 1)])).rejects.toThrow(/goes on at 3/);
    expect(await log.fetch([at(0, 3)])).toHaveLength(3);
    expect(await log.ends('orders')).toEqual([{ partition: 0, start: 3n, end: 6n }]);
  });

  it('reads the same message at every place that names it', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 2 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    const [id] = await fixture.insert(1);
    await appendTo(writer, 0, [id!, id!]);
    await appendTo(writer, 1, [id!]);
    const records = await log.fetch([at(0), at(1)]);
    expect(offsetsOf(records)).toEqual({ 0: [0, 1], 1: [0] });
    expect(new Set(records.map(({ messageId }) => messageId)).size).toBe(1);
  });
});

describe('a row that is not visible yet', () => {
  it('is not skipped, and nothing behind it is delivered before it', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 2 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    const before = await fixture.insert(2);
    const client = await fixture.pool.connect();
    await client.query('begin');
    const hidden = await insertRows(client, 1);
    const after = await fixture.insert(2);
    await appendTo(writer, 0, [...before, ...hidden, ...after]);
    await appendTo(writer, 1, await fixture.insert(1));

    expect(offsetsOf(await log.fetch([at(0), at(1)]))).toEqual({ 0: [0, 1], 1: [0] });
    expect(await log.fetch([at(0, 2)])).toEqual([]);
    const waiting = log.fetch([at(0, 2)], { maxWaitMs: 300_000 });
    await client.query('commit');
    client.release();
    expect(offsetsOf(await waiting)).toEqual({ 0: [2, 3, 4] }); // without any notification
  });

  it('is waited for by patient readers for as long as its transaction runs, while others begin and end', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 1 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    const client = await fixture.pool.connect();
    await client.query('begin');
    const hidden = await insertRows(client, 1);
    await appendTo(writer, 0, hidden);
    const started = performance.now();
    while (performance.now() < started + 800) {
      await fixture.insert(1); // so that the snapshots' bounds move on
      expect(await log.fetch([at(0)])).toEqual([]);
    }
    await client.query('commit');
    client.release();
    expect(await log.fetch([at(0)])).toHaveLength(1);
  });

  it('halts the reader once its transaction has rolled back', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 3 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    const [first] = await fixture.insert(1);
    const client = await fixture.pool.connect();
    await client.query('begin');
    const [hidden] = await insertRows(client, 1);
    await appendTo(writer, 2, [first!, hidden!, ...(await fixture.insert(1))]);
    const waiting = log.fetch([at(2, 1)], { maxWaitMs: 300_000 });
    const outcome = expect(waiting).rejects.toMatchObject({
      code: 'DANGLING_ENTRY',
      retryable: false,
      details: { topic: 'orders', partition: 2, offset: 1n, outboxPosition: String(hidden) },
    });
    await client.query('rollback');
    client.release();
    await outcome;
    expect(payloadsOf(await log.fetch([at(2)]))).toEqual(['1']); // what lies before it can still be read
  });
});

describe('the plan of a fetch', () => {
  /** Each line of a generic plan, made with the settings of the log's connections. */
  async function explain(client: pg.ClientBase, offset: number): Promise<string[]> {
    const result = await client.query<{ 'QUERY PLAN': string }>(
      `explain (analyze, costs off, timing off, summary off) execute tailrace_fetch('{1,2}', '{${offset},${offset}}', 100, 1000000, 100)`,
    );
    return result.rows.map((row) => row['QUERY PLAN']);
  }

  async function prepare(client: pg.ClientBase): Promise<void> {
    for (const [name, value] of Object.entries(PLAN_SETTINGS)) await client.query(`set ${name} = ${value}`);
    await client.query(`prepare tailrace_fetch (int[], bigint[], int, bigint, int) as ${fetchSql('tailrace')}`);
  }

  it.each(['never vacuumed', 'vacuumed'])(
    'made on empty tables, %s, reads by index and only the outbox partitions it needs',
    async (state) => {
      await using fixture = await createLogFixture();
      if (state === 'vacuumed') await fixture.pool.query('vacuum analyze');
      const client = await fixture.pool.connect();
      await prepare(client);
      const empty = await explain(client, 0);
      expect(empty.filter((line) => /Seq Scan|Bitmap/.test(line))).toEqual([]);

      const writer = await acquire(fixture.openLog({ partitions: 2 }));
      await writer.partitionCount('orders');
      await appendTo(writer, 0, await fixture.insert(1_000));
      await fixture.pool.query('alter sequence tailrace.outbox_position_seq restart 4000001');
      await appendTo(writer, 0, await fixture.insert(1_000));
      await appendTo(writer, 1, await fixture.insert(2_000));

      const lines = await explain(client, 1_500);
      client.release();
      const scans = lines.filter((line) => /Scan.* on outbox_/.test(line));
      const executed = scans.filter((line) => !line.includes('never executed'));
      expect(scans.length).toBeGreaterThanOrEqual(8);
      expect(executed.map((line) => /outbox_\d+_pkey/.exec(line)?.[0])).toEqual(['outbox_4000001_pkey']);
      expect(lines.some((line) => /Index Cond: .*base >= .*base < /.test(line))).toBe(true); // not the whole rest of the log
      expect(lines.some((line) => /(Hash|Merge) Full Join/.test(line))).toBe(true);
    },
  );

  it('is made with the settings that this test assumes', async () => {
    await using fixture = await createLogFixture();
    const pool = new ReadPool(fixture.database.connectionString, 'tailrace', silentLogger);
    for (const [name, value] of Object.entries(PLAN_SETTINGS)) {
      expect(await pool.query(`show ${name}`, [])).toEqual([[value]]);
    }
    await pool.close();
  });
});
