import { describe, expect, test } from 'vitest';
import { parseLsn } from '../../src/base/lsn.ts';
import { pollingSource } from '../../src/source/polling/polling-source.ts';
import type { Source, SourceBatch } from '../../src/source/source.ts';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { judge, Ledger, read } from './ledger.ts';
import { createCounters, randomFrom, whileWriting, writeAll } from './writers.ts';

const exact = { lost: 0, invented: 0, doubled: 0, reordered: 0 };
const none = new AbortController().signal;
const patient = { timeout: 60_000, interval: 20 };

/** Reads until everything that is in the outbox is in the ledger. */
async function drain(source: Source, ledger: Ledger, database: TestDatabase): Promise<void> {
  const { rows } = await database.pool.query<{ count: string }>('select count(*) from tailrace.outbox');
  const wanted = Number(rows[0]?.count);
  if (ledger.ids.length < wanted) await read(source, ledger, () => ledger.ids.length >= wanted);
}

async function slotNames(database: TestDatabase): Promise<string[]> {
  const { rows } = await database.pool.query<{ slot_name: string }>(
    'select slot_name from pg_replication_slots where database = $1',
    [database.name],
  );
  return rows.map(({ slot_name }) => slot_name);
}

/** Drops what slots there are. One that was being created when its session ended goes by itself, at any moment. */
async function dropSlots(database: TestDatabase): Promise<void> {
  while ((await slotNames(database)).length > 0) {
    await database.pool.query(
      'select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where database = $1 and active',
      [database.name],
    );
    await database.pool.query(
      'select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1 and not active',
      [database.name],
    );
  }
}

/** What the server may remove the WAL of, for each slot. */
async function confirmedFlush(database: TestDatabase): Promise<string[]> {
  const { rows } = await database.pool.query<{ lsn: string }>(
    'select confirmed_flush_lsn::text as lsn from pg_replication_slots where database = $1',
    [database.name],
  );
  return rows.map(({ lsn }) => lsn);
}

/** Waits until nobody reads from the slots: what was acknowledged has been heard. */
async function released(database: TestDatabase): Promise<void> {
  const active = async (): Promise<number> => {
    const { rowCount } = await database.pool.query('select from pg_replication_slots where database = $1 and active', [
      database.name,
    ]);
    return rowCount ?? -1;
  };
  await expect.poll(active, patient).toBe(0);
}

const publishOne = (database: TestDatabase, topic = 'orders', key: string | null = 'k'): Promise<unknown> =>
  database.pool.query(`select tailrace.publish($1, $2, 'Counted', '1')`, [topic, key]);

describe.each([
  ['WAL', walSource],
  ['polling', pollingSource],
] as const)('the %s source', (_name, make) => {
  test('delivers what was committed before and while it reads, once and in order per key', async () => {
    await using database = await createTestDatabase();
    await createCounters(database.pool, 5);
    await writeAll(database.pool, { writers: 2, transactions: 20, keys: 5, seed: 1 });
    const source = make({ connectionString: database.connectionString, pageRows: 50 });
    const ledger = new Ledger();
    const stop = new AbortController();
    const reading = read(source, ledger, () => false, stop.signal);
    await writeAll(database.pool, { writers: 6, transactions: 80, keys: 5, seed: 2 });
    const { rows } = await database.pool.query<{ count: string }>('select count(*) from tailrace.outbox');
    await expect.poll(() => ledger.ids.length, patient).toBe(Number(rows[0]?.count));
    stop.abort();
    await expect(reading).rejects.toMatchObject({ name: 'AbortError' });
    expect(await judge(database.pool, ledger)).toMatchObject(exact);
  });

  test.each(['transaction', 'WAL position'])(
    'refuses a place with a %s that the server has not come to',
    async (what) => {
      await using database = await createTestDatabase();
      const { rows } = await database.pool.query<{ xid: string; lsn: string }>(
        `select (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000)::text as xid,
         (pg_current_wal_insert_lsn() + 4294967296)::text as lsn`,
      );
      const [{ xid, lsn } = { xid: '', lsn: '' }] = rows;
      const resume = {
        progress: what === 'transaction' ? '0/0' : lsn,
        checkpoint: what === 'transaction' ? `${xid}:${xid}: ` : undefined,
        appendedSinceCheckpoint: () => Promise.resolve(new Float64Array()),
      };
      await expect(make({ connectionString: database.connectionString }).open(resume, none)).rejects.toMatchObject({
        code: 'WRONG_CLUSTER',
        retryable: false,
        message: expect.stringContaining('set checkpoint = null'),
      });
    },
  );

  test('delivers again what was not kept, and nothing else', async () => {
    await using database = await createTestDatabase();
    await createCounters(database.pool, 5);
    const source = make({ connectionString: database.connectionString, pageRows: 20 });
    const ledger = new Ledger();
    await writeAll(database.pool, { writers: 2, transactions: 30, keys: 5, seed: 3 });
    await read(source, ledger, () => ledger.ids.length >= 30);
    const reader = await source.open(ledger, none);
    await writeAll(database.pool, { writers: 2, transactions: 30, keys: 5, seed: 4 });
    await reader.next(none); // not kept: the crash came before the append
    await reader.close();
    await drain(source, ledger, database);
    expect(await judge(database.pool, ledger)).toMatchObject(exact);
  });

  test('carries keys, topics and their order within a transaction', async () => {
    await using database = await createTestDatabase();
    const batches: SourceBatch[] = [];
    await database.pool.query(
      `select tailrace.publish(t, k, 'Counted', '1') from (values ('a', 'x'), ('b', null), ('a', 'Grüße')) v (t, k)`,
    );
    await read(make({ connectionString: database.connectionString }), new Ledger(), (_reader, batch) => {
      batches.push(batch);
      return batches.flatMap(({ ids }) => ids).length === 3;
    });
    expect(batches.flatMap(({ topics }) => topics)).toEqual(['a', 'b', 'a']);
    const hashes = batches.flatMap(({ keyHashes }) => keyHashes);
    expect(hashes[1]).toBe(-1);
    expect(hashes.filter((hash) => hash >= 0)).toHaveLength(2);
  });

  test('closes twice, and its connections are gone', async () => {
    await using database = await createTestDatabase();
    const reader = await make({ connectionString: database.connectionString }).open(new Ledger(), none);
    await reader.close();
    await reader.close();
    const left = async (): Promise<number> => {
      const { rowCount } = await database.pool.query(
        `select from pg_stat_activity where datname = $1 and application_name like 'tailrace relay%'`,
        [database.name],
      );
      return rowCount ?? -1;
    };
    await expect.poll(left, patient).toBe(0);
  });

  test('refuses a database that was not migrated', async () => {
    await using database = await createTestDatabase();
    await database.pool.query('drop schema tailrace cascade');
    await expect(make({ connectionString: database.connectionString }).open(new Ledger(), none)).rejects.toMatchObject({
      code: 'NOT_MIGRATED',
    });
  });

  test('refuses an outbox whose positions are handed out in blocks', async () => {
    await using database = await createTestDatabase();
    await database.pool.query('alter table tailrace.outbox alter column position set cache 20');
    await expect(make({ connectionString: database.connectionString }).open(new Ledger(), none)).rejects.toMatchObject({
      code: 'OUTBOX_UNSAFE',
    });
  });
});

describe('either source resumes where the other stopped', () => {
  const given = process.env['TAILRACE_SEEDS']?.split(',').map(Number);
  test.each(given ?? [11, 12, 13])('exactly, through crashes, switches and lost slots (seed %i)', async (seed) => {
    await using database = await createTestDatabase();
    const random = randomFrom(seed);
    await createCounters(database.pool, 8);
    const ledger = new Ledger();
    const sources = {
      wal: walSource({ connectionString: database.connectionString, pageRows: 40 }),
      polling: pollingSource({ connectionString: database.connectionString, pageRows: 40 }),
    };
    const steps: string[] = [];
    const streamed = (): number => steps.filter((step) => step.startsWith('wal (wal)')).length;
    await whileWriting(database.pool, { writers: 6, transactions: 50, keys: 8, seed }, async () => {
      while (steps.length < 25 || streamed() < 5) {
        const mode = random() < 0.6 ? 'wal' : 'polling';
        const untilStreaming = mode === 'wal' && random() < 0.7;
        const more = Math.floor(random() * 150);
        const lose = random() < 0.5;
        const reader = await sources[mode].open(ledger, none);
        const take = async (): Promise<void> => {
          ledger.keep(await reader.next(none));
          reader.durable();
        };
        while (untilStreaming && reader.status.mode !== 'wal') await take();
        const target = ledger.ids.length + more;
        while (ledger.ids.length < target) await take();
        steps.push(`${mode} (${reader.status.mode}) to ${ledger.ids.length}${lose ? ', batch lost' : ''}`);
        if (lose) await reader.next(none); // read, and lost in the crash
        await reader.close();
        if (random() < 0.3) await dropSlots(database);
      }
    });
    await drain(sources[random() < 0.5 ? 'wal' : 'polling'], ledger, database);
    expect(await judge(database.pool, ledger), `seed ${seed}: ${steps.join(', ')}`).toMatchObject(exact);
  });
});

describe('the WAL source', () => {
  test('streams after the slot exists, and acknowledges nothing beyond what was made durable', async () => {
    await using database = await createTestDatabase();
    const ledger = new Ledger();
    const source = walSource({ connectionString: database.connectionString });
    const reader = await source.open(ledger, none);
    // The slot is created in the background, and polling delivers until it exists: it is gone over to with a next message.
    let published = 0;
    while (reader.status.mode !== 'wal') {
      await publishOne(database);
      published += 1;
      ledger.keep(await reader.next(none));
      reader.durable();
    }
    await publishOne(database);
    for (let batch = await reader.next(none); batch.ids.length === 0; batch = await reader.next(none)) {
      ledger.keep(batch); // a checkpoint by itself
      reader.durable();
    }
    // The message was read and is not durable: the slot must not move past what was before it.
    const durable = ledger.progress;
    await reader.close(); // acknowledges what is durable
    await released(database);
    const confirmed = await confirmedFlush(database);
    expect(confirmed).toHaveLength(1);
    expect(parseLsn(confirmed[0] ?? '')).toBeLessThanOrEqual(parseLsn(durable ?? ''));
    await read(source, ledger, () => ledger.ids.length > published);
    expect([...ledger.ids].sort((a, b) => a - b)).toEqual(Array.from({ length: published + 1 }, (_, n) => n + 1));
  });

  test('acknowledges what was made durable, by itself and when it is closed', async () => {
    await using database = await createTestDatabase();
    const ledger = new Ledger();
    const reader = await walSource({ connectionString: database.connectionString }).open(ledger, none);
    const takeOne = async (): Promise<bigint> => {
      await publishOne(database);
      ledger.keep(await reader.next(none));
      reader.durable();
      return parseLsn(ledger.progress ?? '');
    };
    while (reader.status.mode !== 'wal') await takeOne();
    const first = await takeOne();
    await expect.poll(async () => parseLsn((await confirmedFlush(database))[0] ?? '0/0') >= first, patient).toBe(true);
    const last = await takeOne();
    await reader.close();
    await released(database);
    expect(parseLsn((await confirmedFlush(database))[0] ?? '')).toBeGreaterThanOrEqual(last);
  });

  test('leaves a slot alone that was made for something else', async () => {
    await using database = await createTestDatabase();
    const slot = `foreign_${database.name}`;
    await database.pool.query(`select pg_create_logical_replication_slot($1, 'test_decoding')`, [slot]);
    const source = walSource({ connectionString: database.connectionString, slot });
    await expect(source.open(new Ledger(), none)).rejects.toMatchObject({ code: 'SLOT_TAKEN' });
    expect(await slotNames(database)).toEqual([slot]);
  });

  test('moves the slot on while the outbox is idle and the server busy', async () => {
    await using database = await createTestDatabase();
    const ledger = new Ledger();
    const stop = new AbortController();
    const source = walSource({ connectionString: database.connectionString });
    await publishOne(database);
    const reading = read(source, ledger, () => false, stop.signal);
    await database.pool.query('create table noise (text text)');
    /** `undefined` while there is no slot, or it is not finished. */
    const behind = async (): Promise<number | undefined> => {
      await database.pool.query(`insert into noise select repeat('x', 1000) from generate_series(1, 2000)`);
      const { rows } = await database.pool.query<{ bytes: string | null }>(
        'select pg_current_wal_lsn() - confirmed_flush_lsn as bytes from pg_replication_slots where database = $1',
        [database.name],
      );
      const bytes = rows[0]?.bytes ?? undefined;
      return bytes === undefined ? undefined : Number(bytes);
    };
    let furthest = 0;
    await expect
      .poll(async () => {
        const now = await behind();
        if (now === undefined) return false;
        furthest = Math.max(furthest, now);
        return now < furthest / 2 && furthest > 16 * 1024 * 1024;
      }, patient)
      .toBe(true);
    stop.abort();
    await expect(reading).rejects.toMatchObject({ name: 'AbortError' });
  });

  test.each([
    ['the publication is gone', 'drop publication tailrace', /publication tailrace does not exist/],
    ['inserts are not published', `alter publication tailrace set (publish = 'update')`, /does not publish inserts/],
    [
      'a column is left out',
      'alter publication tailrace set table tailrace.outbox (position, topic, key)',
      /leaves out the columns tx/,
    ],
    [
      'rows are filtered',
      `alter publication tailrace set table tailrace.outbox (position, topic, key, tx) where (position > 0)`,
      /row filter/,
    ],
  ])('polls where %s, and says so', async (_what, sql, reason) => {
    await using database = await createTestDatabase();
    await database.pool.query(sql);
    const ledger = new Ledger();
    await publishOne(database);
    let status: unknown;
    await read(walSource({ connectionString: database.connectionString }), ledger, (reader) => {
      status = reader.status;
      return true;
    });
    expect(ledger.ids).toHaveLength(1);
    expect(status).toEqual({ mode: 'polling', reason: expect.stringMatching(reason) as string });
  });

  test('polls for a role that may not replicate', async () => {
    await using database = await createTestDatabase();
    const role = `poller_${database.name}`;
    await database.pool.query(`create role ${role} login password 'poll'`);
    try {
      await database.pool.query(`grant usage on schema tailrace to ${role}`);
      await database.pool.query(`grant select on all tables in schema tailrace to ${role}`);
      await publishOne(database);
      const url = new URL(database.connectionString);
      url.username = role;
      url.password = 'poll';
      let status: unknown;
      await read(walSource({ connectionString: url.href }), new Ledger(), (reader) => {
        status = reader.status;
        return true;
      });
      expect(status).toEqual({ mode: 'polling', reason: 'the role has no REPLICATION attribute' });
    } finally {
      await database.pool.query(`drop owned by ${role}; drop role ${role}`);
    }
  });
});
