import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import type { LogWriter, PostgresLog } from '../../../src/broker/postgres/index.ts';
import { openMaintenanceClient } from '../../../src/broker/postgres/maintenance/maintenance.ts';
import { maintain } from '../../../src/broker/postgres/maintenance/round.ts';
import { acquire, createLogFixture, insertRows, type LogFixture } from './fixture.ts';

let fixture: LogFixture;
let log: PostgresLog;
let writer: LogWriter;
let client: pg.Client;

beforeAll(async () => {
  fixture = await createLogFixture();
  log = fixture.openLog({ partitions: 1, maintenance: false });
  writer = await acquire(log);
  client = await openMaintenanceClient(fixture.database.connectionString);
});

afterAll(async () => {
  await client.end();
  await fixture[Symbol.asyncDispose]();
});

/** Appends entries of three records each, with a checkpoint. */
async function append(topic: string, entries: number): Promise<void> {
  await writer.partitionCount(topic);
  for (let n = 0; n < entries; n++) {
    const ids = await insertRows(fixture.pool, 3, topic);
    await writer.append({ appends: [{ topic, partition: 0, ids }], progress: 'p', checkpoint: '1:1: ' });
  }
}

async function agePast(topic: string, below: number): Promise<void> {
  await fixture.pool.query(
    `update tailrace.log_entry set appended_at = appended_at - interval '1 hour' where base < $2
      and partition = (select id from tailrace.log_partition where topic = $1)`,
    [topic, below],
  );
}

const round = () =>
  maintain(client, { schema: 'tailrace', holder: 'test', keepOutboxMs: 86_400_000, logger: silentLogger });
const basesOf = async (topic: string): Promise<number[]> =>
  (
    await fixture.pool.query<{ base: number }>(
      `select e.base::int as base from tailrace.log_entry e join tailrace.log_partition p on p.id = e.partition
        where p.topic = $1 order by 1`,
      [topic],
    )
  ).rows.map(({ base }) => base);

describe('retention', () => {
  it('by time moves the start, removes what lies below, and says so to who reads there', async () => {
    await append('timed', 4);
    await log.alterTopic('timed', { retentionMs: 60_000 });
    await round();
    expect(await log.ends('timed')).toEqual([{ partition: 0, start: 0n, end: 12n }]);
    await agePast('timed', 6);
    await round();
    expect(await log.ends('timed')).toEqual([{ partition: 0, start: 6n, end: 12n }]);
    expect(await basesOf('timed')).toEqual([6, 9]);
    await expect(log.fetch([{ topic: 'timed', partition: 0, offset: 4n }])).rejects.toMatchObject({
      code: 'OFFSET_OUT_OF_RANGE',
      message: expect.stringMatching(/offset 4 in timed partition 0: the log goes on at 6/),
    });
    const records = await log.fetch([{ topic: 'timed', partition: 0, offset: 6n }]);
    expect(records.map(({ offset }) => offset)).toEqual([6n, 7n, 8n, 9n, 10n, 11n]);
    expect(await log.offsetsAt('timed', new Date(0))).toEqual([{ topic: 'timed', partition: 0, offset: 6n }]);
  });

  it('of all records leaves the entry that says where the partition ends, and offsets go on', async () => {
    await append('emptied', 2);
    await log.alterTopic('emptied', { retentionMs: 60_000 });
    await agePast('emptied', 6);
    await round();
    expect(await log.ends('emptied')).toEqual([{ partition: 0, start: 6n, end: 6n }]);
    expect(await basesOf('emptied')).toEqual([3]);
    expect(await log.fetch([{ topic: 'emptied', partition: 0, offset: 6n }])).toEqual([]);
    await append('emptied', 1);
    const records = await log.fetch([{ topic: 'emptied', partition: 0, offset: 6n }]);
    expect(records.map(({ offset }) => offset)).toEqual([6n, 7n, 8n]);
  });

  it('by size keeps as many bytes as it says, measures what comes, and is lifted', async () => {
    await append('sized', 10);
    const [row] = (
      await fixture.pool.query<{ bytes: number }>(
        `select sum(octet_length(payload::text) + octet_length(headers::text) + octet_length(key))::int as bytes
          from tailrace.outbox where topic = 'sized' and position in (select unnest(ids) from tailrace.log_entry
            where base >= 21 and partition = (select id from tailrace.log_partition where topic = 'sized'))`,
      )
    ).rows;
    await log.alterTopic('sized', { retentionBytes: row!.bytes });
    await round();
    const [ends] = await log.ends('sized');
    expect(ends!.end).toBe(30n);
    // Entries that were measured in one step stay together.
    expect(ends!.start).toBeLessThanOrEqual(21n);
    for (let n = 0; n < 3; n++) {
      await append('sized', 4);
      await round();
    }
    const kept = await log.ends('sized');
    expect(kept).toEqual([{ partition: 0, start: 54n, end: 66n }]);
    await log.alterTopic('sized', { retentionBytes: null });
    await append('sized', 4);
    await round();
    expect(await log.ends('sized')).toEqual([{ partition: 0, start: 54n, end: 78n }]);
  });

  it('keeps entries behind the last checkpoint: a relay that starts over reads them', async () => {
    await append('recent', 2);
    await writer.append({
      appends: [{ topic: 'recent', partition: 0, ids: await insertRows(fixture.pool, 3, 'recent') }],
      progress: 'p',
    });
    await append('another', 0);
    await log.alterTopic('recent', { retentionMs: 60_000 });
    await agePast('recent', 9);
    const before = (await writer.appendedSinceCheckpoint()).length;
    await round();
    expect(await log.ends('recent')).toEqual([{ partition: 0, start: 9n, end: 9n }]);
    expect(await basesOf('recent')).toEqual([6]);
    expect((await writer.appendedSinceCheckpoint()).length).toBe(before);
  });

  it('leaves a round to who is at it', async () => {
    const other = await openMaintenanceClient(fixture.database.connectionString);
    await other.query(`select pg_advisory_lock(hashtext('tailrace_maintenance'), hashtext('tailrace'))`);
    expect(await round()).toBe('busy');
    await other.end();
  });

  it('is not set to what cannot be', async () => {
    await expect(log.alterTopic('timed', { retentionMs: 0 })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(log.alterTopic('timed', { retentionBytes: 1.5 })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    await expect(log.alterTopic('nowhere', { retentionMs: 1 })).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC' });
  });
});
