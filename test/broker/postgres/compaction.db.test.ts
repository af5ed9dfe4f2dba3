import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { type LogRecord, type LogWriter, type PostgresLog } from '../../../src/broker/postgres/index.ts';
import type { CompactionBounds } from '../../../src/broker/postgres/maintenance/compaction.ts';
import { openMaintenanceClient } from '../../../src/broker/postgres/maintenance/maintenance.ts';
import { maintain, type RoundReport } from '../../../src/broker/postgres/maintenance/round.ts';
import { createConsumer } from '../../../src/consumer/index.ts';
import { defineEvent } from '../../../src/message/definition.ts';
import { acquire, createLogFixture, until, type LogFixture } from './fixture.ts';

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

/** A message: its key, and its payload as JSON. */
type Message = readonly [key: string | null, payload: string];

/** As a relay stores it: all that can be seen now is in the log. */
async function checkpointNow(): Promise<string> {
  const { rows } = await fixture.pool.query<{ now: string }>('select pg_current_snapshot()::text as now');
  return `${rows[0]!.now} `;
}

/** What a topic got, by offset. */
class Topic {
  readonly name: string;
  readonly messages: Message[] = [];

  constructor(name: string) {
    this.name = name;
  }

  static async create(name: string, settings: Parameters<PostgresLog['alterTopic']>[1] = {}): Promise<Topic> {
    await log.createTopic(name, 1, { compact: true, minCompactionLagMs: 0, ...settings });
    return new Topic(name);
  }

  /** One entry, behind which there is a checkpoint. */
  async append(...messages: Message[]): Promise<void> {
    const { pool } = fixture;
    const { rows } = await pool.query<{ position: string }>(
      `insert into tailrace.outbox (message_id, topic, key, type, payload)
        select tailrace.uuid_v7(), $1, key, 'Changed', payload
          from unnest($2::text[], $3::json[]) with ordinality m (key, payload, n) order by n returning position`,
      [this.name, messages.map(([key]) => key), messages.map(([, payload]) => payload)],
    );
    await writer.partitionCount(this.name);
    const ids = rows.map(({ position }) => Number(position));
    const checkpoint = await checkpointNow();
    await writer.append({ appends: [{ topic: this.name, partition: 0, ids }], progress: 'p', checkpoint });
    this.messages.push(...messages);
  }

  /** Everything that is left, read in many ways: always the same. */
  async left(): Promise<LogRecord[]> {
    const all = await this.readFrom(0n);
    expect(await this.readFrom(0n, { maxRecords: 2 })).toEqual(all);
    expect(await this.readFrom(0n, { maxBytes: 30 })).toEqual(all);
    return all;
  }

  async readFrom(first: bigint, bounds: { maxRecords?: number; maxBytes?: number } = {}): Promise<LogRecord[]> {
    const [ends] = await log.ends(this.name);
    const all: LogRecord[] = [];
    for (let offset = first > ends!.start ? first : ends!.start; offset < ends!.end;) {
      const records = await log.fetch([{ topic: this.name, partition: 0, offset }], bounds);
      all.push(...records);
      offset = records.at(-1)!.offset + 1n;
    }
    return all;
  }

  /** The offsets that are left, after a check that each holds what was appended there. */
  async offsets(): Promise<number[]> {
    const left = await this.left();
    for (const { offset, key, payload } of left) expect([key, payload]).toEqual(this.messages[Number(offset)]);
    return left.map(({ offset }) => Number(offset));
  }

  /** The last offset of each key, and those without a key. */
  last(): number[] {
    const last = new Map(this.messages.map(([key], n) => [key ?? n, n]));
    return [...last.values()].sort((a, b) => a - b);
  }

  async state(): Promise<{ clean_to: number; kept: number; pass_to: number | null } | undefined> {
    const { rows } = await fixture.pool.query<{ clean_to: number; kept: number; pass_to: number | null }>(
      `select c.clean_to::int, c.kept::int, c.pass_to::int from tailrace.log_compaction c
        join tailrace.log_partition p on p.id = c.partition where p.topic = $1`,
      [this.name],
    );
    return rows[0];
  }
}

async function round(
  compaction?: CompactionBounds,
  { by = client, keepOutboxMs = 86_400_000 }: { by?: pg.Client; keepOutboxMs?: number } = {},
): Promise<RoundReport> {
  const options = { schema: 'tailrace', holder: 'test', keepOutboxMs, waitMs: 60_000, logger: silentLogger };
  return until(async () => {
    const result = await maintain(by, { ...options, ...(compaction && { compaction }) });
    return result === 'busy' ? undefined : result; // a connection that was ended may keep its lock for a moment
  });
}

const changes = (keys: readonly (string | null)[], payload: string): Message[] => keys.map((key) => [key, payload]);

describe('a compacted topic', () => {
  it('keeps the last record of each key at its offset, and what has no key; a reader passes over the rest', async () => {
    const topic = await Topic.create('customers');
    await topic.append(...changes(['a', 'b', null, 'a'], '{"n":1}'));
    await topic.append(...changes(['a', 'b'], '{"n":2}'));
    await topic.append(...changes(['b', 'c', ''], '{"n":3}'));
    await topic.append(...changes(['', 'b'], '{"n":4}'));
    const before = await topic.left();
    const moments = await momentsOf(topic);
    const placesBefore = await placesAt(topic, moments);
    expect(before).toHaveLength(11);

    expect(await round()).toMatchObject({ compactedRecords: 6 });
    expect(await topic.offsets()).toEqual([2, 4, 7, 9, 10]);
    expect(await topic.left()).toEqual(before.filter(({ offset }) => [2n, 4n, 7n, 9n, 10n].includes(offset)));
    expect(await log.ends(topic.name)).toEqual([{ partition: 0, start: 0n, end: 11n }]);
    for (let offset = 0n; offset <= 11n; offset++)
      expect((await topic.readFrom(offset)).map((record) => record.offset)).toEqual(
        [2n, 4n, 7n, 9n, 10n].filter((one) => one >= offset),
      );
    const places = await placesAt(topic, moments);
    for (const [n, place] of places.entries())
      expect(await topic.readFrom(place)).toEqual(await topic.readFrom(placesBefore[n]!));

    expect(await round()).toMatchObject({ compactedRecords: 0 });
    await topic.append(...changes(['a', 'c'], '{"n":5}'));
    await log.alterTopic(topic.name, { compact: false });
    await topic.append(...changes(['a', 'b', 'c', ''], '{"n":6}'));
    expect(await round()).toMatchObject({ compactedRecords: 0 });
    expect(await topic.offsets()).toEqual([2, 4, 7, 9, 10, 11, 12, 13, 14, 15, 16]);
  });

  it('gives a group that begins with it all that is left, in order, up to the end', async () => {
    const topic = await Topic.create('accounts');
    for (let n = 0; n < 6; n++) await topic.append(...changes(['a', 'b', `only-${n}`, 'c'], `{"n":${n}}`));
    await round();
    const offsets = await topic.offsets();
    expect(offsets).toEqual(topic.last());
    await fixture.pool.query('create table effect (record_offset int)');
    const consumer = createConsumer({
      log,
      group: 'mirror',
      database: fixture.pool,
      concurrency: 1,
      leaseMs: 300_000,
    }).on(defineEvent('Changed', { topic: topic.name }), async (_event, { tx, record }) => {
      await tx.query('insert into effect values ($1)', [record.offset]);
    });
    await consumer.start();
    await topic.append(['d', '{"n":7}']);
    const handled = await until(async () => {
      const { rows } = await fixture.pool.query<{ at: number }>('select record_offset as at from effect');
      return rows.some(({ at }) => at === 24) ? rows.map(({ at }) => at) : undefined;
    });
    expect(handled).toEqual([...offsets, 24]);
    await consumer.stop();
    const { rows } = await fixture.pool.query('select next_offset::int as at from tailrace.consumer_cursor');
    expect(rows).toEqual([{ at: 25 }]);
  });

  it('keeps what is young', async () => {
    const topic = await Topic.create('young', { minCompactionLagMs: 3_600_000 });
    await topic.append(...changes(['a', 'a'], '1'));
    await topic.append(...changes(['a', 'a'], '2'));
    expect(await round()).toMatchObject({ compactedRecords: 0 });
    await age(topic, 2);
    expect(await round()).toMatchObject({ compactedRecords: 1 });
    expect(await topic.offsets()).toEqual([1, 2, 3]); // what is young supersedes nothing yet
  });

  it('goes on after any number of rounds that end early, and after a connection that ends in the middle', async () => {
    const topic = await Topic.create('interrupted');
    const keys = Array.from({ length: 40 }, (_, n) => `key-${n % 13}`);
    for (let n = 0; n < 40; n += 4) await topic.append(...changes(keys.slice(n, n + 4), `{"n":${n}}`));
    const small = { records: 1, keys: 1 };
    for (let rounds = 0; (await topic.state())?.clean_to !== 40; rounds++) {
      expect(rounds).toBeLessThan(200);
      await round(small);
      const offsets = new Set(await topic.offsets());
      for (const offset of topic.last()) expect(offsets).toContain(offset);
    }
    expect(await topic.offsets()).toEqual(topic.last());

    await topic.append(...changes(keys, '{"n":40}'));
    const before = await topic.left();
    const blocker = await fixture.pool.connect();
    const partition = `(select id from tailrace.log_partition where topic = 'interrupted')`;
    await blocker.query(`insert into tailrace.log_segment values (${partition}, 0, 80, 10000, now(), now())`);
    await blocker.query(`begin; select from tailrace.log_segment where partition = ${partition} for update`);
    const doomed = await openMaintenanceClient(fixture.database.connectionString);
    doomed.on('error', () => undefined);
    await doomed.query('set lock_timeout = 0');
    const { rows } = await doomed.query<{ pid: number }>('select pg_backend_pid() as pid');
    const failed = expect(round(undefined, { by: doomed })).rejects.toThrow();
    await until(async () => {
      const waiting = await fixture.pool.query(
        `select from pg_stat_activity where pid = $1 and wait_event_type = 'Lock' and query ~ 'log_segment'`,
        [rows[0]!.pid],
      );
      return waiting.rowCount === 1 ? true : undefined;
    });
    await fixture.pool.query('select pg_terminate_backend($1)', [rows[0]!.pid]); // entries are deleted and inserted
    await failed;
    await blocker.query('rollback');
    blocker.release();
    expect(await topic.left()).toEqual(before);
    expect(await topic.state()).toMatchObject({ pass_to: 80 });

    const { compactedRecords } = await round();
    expect(compactedRecords).toBe(before.length - 13);
    expect(await topic.offsets()).toEqual(topic.last());
    const sizes = before.filter(({ offset }) => !topic.last().includes(Number(offset)));
    const bytes = sizes.reduce((sum, { key, payload }) => sum + key!.length + payload!.length + 2, 0);
    const segment = await fixture.pool.query(
      `select bytes::int from tailrace.log_segment where partition = ${partition}`,
    );
    expect(segment.rows).toEqual([{ bytes: 10_000 - bytes }]);
  });

  it('loses no last record while appends go on', async () => {
    const topic = await Topic.create('busy');
    const over = new AbortController();
    const appending = (async () => {
      for (let n = 0; n < 60; n++) await topic.append(...changes([`key-${n % 7}`, null, `key-${n % 11}`], `${n}`));
    })().finally(() => over.abort());
    let removed = 0;
    while (!over.signal.aborted) removed += (await round({ records: 20, keys: 5 })).compactedRecords;
    await appending;
    const offsets = await topic.offsets();
    expect(offsets).toHaveLength(180 - removed);
    for (const offset of topic.last()) expect(offsets).toContain(offset);
    await untilClean(topic, 180);
    expect(await topic.offsets()).toEqual(topic.last());
  });
});

describe('a delete marker', () => {
  it('supersedes, stays for its time, then leaves; the last record of a partition stays', async () => {
    const topic = await Topic.create('deleted', { deleteRetentionMs: 3_600_000 });
    await topic.append(['a', '1'], ['b', '1'], [null, 'null']);
    await topic.append(['a', ' null '], ['c', '1']);
    await topic.append(['b', 'null'], ['d', 'null']);
    await round();
    expect(await topic.offsets()).toEqual([2, 3, 4, 5, 6]);
    expect(await round()).toMatchObject({ compactedRecords: 0 });
    await fixture.pool.query(`update tailrace.log_compaction set marker_since = marker_since - interval '1 hour'`);
    expect(await round()).toMatchObject({ compactedRecords: 2 });
    expect(await topic.offsets()).toEqual([2, 4, 6]); // no value of a key that was deleted comes back
    expect(await log.ends(topic.name)).toEqual([{ partition: 0, start: 0n, end: 7n }]);
    await topic.append(['e', '1']);
    await untilClean(topic, 8);
    await fixture.pool.query(`update tailrace.log_compaction set marker_since = marker_since - interval '1 hour'`);
    await round();
    expect(await topic.offsets()).toEqual([2, 4, 7]);
  });

  it('stays where a partition that was there before may hold older records of its key', async () => {
    await log.createTopic('grown', 1, { compact: true, minCompactionLagMs: 0, deleteRetentionMs: 0 });
    await log.addPartitions('grown', 2);
    const { rows } = await fixture.pool.query<{ position: string }>(
      `insert into tailrace.outbox (message_id, topic, key, type, payload) select tailrace.uuid_v7(), 'grown', key, 'Changed', 'null'
        from unnest(array['a', 'b', 'c', 'd']) key returning position`,
    );
    const [a, b, c, d] = rows.map(({ position }) => Number(position));
    await writer.partitionCounts('grown');
    const appends = [
      [a!, b!],
      [c!, d!],
    ].map((ids, partition) => ({ topic: 'grown', partition, ids }));
    const checkpoint = await checkpointNow();
    await writer.append({ appends, progress: 'p', checkpoint }).catch(async () => {
      await writer.partitionCounts('grown');
      await writer.append({ appends, progress: 'p', checkpoint });
    });
    for (let n = 0; n < 3; n++) await round();
    const read = await log.fetch([0, 1].map((partition) => ({ topic: 'grown', partition, offset: 0n })));
    expect(read.map(({ key }) => key).sort()).toEqual(['b', 'c', 'd']);
  });
});

it('goes together with retention, and with partitions of the outbox that leave', async () => {
  const { pool } = fixture;
  const topic = await Topic.create('both', { retentionMs: 3_600_000 });
  for (let n = 0; n < 5; n++) await topic.append(...changes(['a', 'b', `only-${n}`], `{"n":${n}}`));
  await untilClean(topic, 15);
  expect(await topic.offsets()).toEqual([2, 5, 8, 11, 12, 13, 14]);
  for (let n = 5; n < 8; n++) await topic.append(...changes(['a', 'b', `only-${n}`], `{"n":${n}}`));

  // All that was written so far becomes a partition that is full, and old enough to leave.
  const { rows } = await pool.query<{ next: number }>('select max(position)::int + 1 as next from tailrace.outbox');
  await pool.query(`alter table tailrace.outbox detach partition tailrace.outbox_1;
    alter table tailrace.outbox attach partition tailrace.outbox_1 for values from (1) to (${rows[0]!.next});
    create table tailrace.outbox_2 (like tailrace.outbox including defaults including constraints including indexes);
    alter table tailrace.outbox attach partition tailrace.outbox_2 for values from (${rows[0]!.next}) to (2000001)`);
  await topic.append(...changes(['a', 'z'], '{"n":8}'));
  const report = await round(undefined, { keepOutboxMs: 0 });
  expect(report).toMatchObject({ waiting: 0, droppedPartitions: 1, isOwner: true });
  expect(report.packedRecords).toBeGreaterThan(0);
  await untilClean(topic, 26);
  expect(await topic.offsets()).toEqual(topic.last());

  await age(topic, 20);
  expect(await round()).toMatchObject({ compactedRecords: 0 });
  const [ends] = await log.ends(topic.name);
  expect(ends!.start).toBeGreaterThan(0n);
  expect(await topic.offsets()).toEqual(topic.last().filter((offset) => BigInt(offset) >= ends!.start));
  await topic.append(...changes(['a', 'only-7', 'y'], '{"n":9}'));
  await untilClean(topic, 29);
  const late = topic.last().filter((offset) => BigInt(offset) >= ends!.start);
  expect(await topic.offsets()).toEqual(late);
});

it.each([{ compact: 'yes' as unknown as boolean }, { minCompactionLagMs: -1 }, { deleteRetentionMs: 0.5 }])(
  'refuses %j',
  async (settings) => {
    await expect(log.alterTopic('customers', settings)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  },
);

/** Rounds until a topic is clean up to an offset: half of it has to be new, or to have waited. */
async function untilClean(topic: Topic, offset: number): Promise<void> {
  for (let rounds = 0; (await topic.state())?.clean_to !== offset; rounds++) {
    expect(rounds).toBeLessThan(50);
    await fixture.pool.query('update tailrace.log_compaction set kept = 0');
    await round();
  }
}

async function age(topic: Topic, below: number): Promise<void> {
  await fixture.pool.query(
    `update tailrace.log_entry set appended_at = appended_at - interval '2 hours' where base < $2
      and partition = (select id from tailrace.log_partition where topic = $1)`,
    [topic.name, below],
  );
}

async function momentsOf(topic: Topic): Promise<Date[]> {
  const { rows } = await fixture.pool.query<{ at: Date }>(
    `select distinct appended_at as at from tailrace.log_entry
      where partition = (select id from tailrace.log_partition where topic = $1)`,
    [topic.name],
  );
  return rows.flatMap(({ at }) => [at, new Date(at.getTime() + 1)]);
}

async function placesAt(topic: Topic, moments: readonly Date[]): Promise<bigint[]> {
  const places = await Promise.all(moments.map((at) => log.offsetsAt(topic.name, at)));
  return places.map(([place]) => place!.offset);
}
