import { expect, test as base } from 'vitest';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { none, publish, relayUntil, take, takeAll, until } from './harness.ts';
import { judge, Ledger } from './ledger.ts';

/** These tests wait more than they work. */
const test = base.concurrent;

const exact = { lost: 0, invented: 0, doubled: 0, reordered: 0 };
const SLOT_OF_DATABASE = 'from pg_replication_slots where database = current_database()';

async function slots(database: TestDatabase): Promise<number> {
  const { rowCount } = await database.pool.query(`select ${SLOT_OF_DATABASE}`);
  return rowCount ?? 0;
}

/** Ends what still streams from it. */
async function releaseSlot(database: TestDatabase): Promise<void> {
  await database.pool.query(`select pg_terminate_backend(active_pid, 60000) ${SLOT_OF_DATABASE} and active`);
}

/** Its stream ends with it. */
async function dropSlot(database: TestDatabase): Promise<void> {
  await releaseSlot(database);
  await database.pool.query(`select pg_drop_replication_slot(slot_name) ${SLOT_OF_DATABASE}`);
}

/** A source and its ledger, which have come to read the WAL. */
async function streaming(database: TestDatabase) {
  const source = walSource({ connectionString: database.connectionString });
  const ledger = new Ledger();
  await publish(database, 3);
  const relay = (enough: Parameters<typeof relayUntil>[2]) => relayUntil(source, ledger, enough);
  const untilStreaming = () => relay(({ status }) => status.mode === 'wal');
  await untilStreaming();
  return { source, ledger, relay, untilStreaming };
}

test.each<[string, (database: TestDatabase) => Promise<unknown>]>([
  ['is missing', dropSlot],
  [
    'was made anew by somebody else',
    async (database) => {
      await dropSlot(database);
      await publish(database, 2);
      const { rows } = await database.pool.query<{ oid: string }>(
        'select oid from pg_database where datname = current_database()',
      );
      await database.pool.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [
        `tailrace_${rows[0]?.oid ?? ''}`,
      ]);
    },
  ],
  [
    'was moved on by somebody else',
    async (database) => {
      await publish(database, 2);
      await releaseSlot(database);
      await database.pool.query(
        `select pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) ${SLOT_OF_DATABASE}`,
      );
    },
  ],
])('a slot that %s is created anew while polling delivers', async (_what, lose) => {
  await using database = await createTestDatabase();
  const { ledger, relay, untilStreaming } = await streaming(database);
  await lose(database);
  await publish(database, 4);
  const { reasons } = await relay(async () => (await judge(database.pool, ledger)).lost === 0);
  expect(reasons[0]).toMatch(/^creating the replication slot tailrace_\d+$/);
  await untilStreaming();
  await publish(database, 4);
  await relay(async () => (await judge(database.pool, ledger)).lost === 0);
  expect(await judge(database.pool, ledger)).toMatchObject(exact);
});

test('a slot that is dropped while it streams is created anew', async () => {
  await using database = await createTestDatabase();
  const { source, ledger, relay, untilStreaming } = await streaming(database);
  const reader = await source.open(ledger, none);
  await dropSlot(database);
  await expect(takeAll(reader, ledger)).rejects.toMatchObject({ code: 'REPLICATION_FAILED', retryable: true });
  await reader.close();
  await publish(database, 4);
  await untilStreaming();
  await publish(database, 4);
  await relay(async () => (await judge(database.pool, ledger)).lost === 0);
  expect(await judge(database.pool, ledger)).toMatchObject(exact);
});

const RESTORED = 'alter publication tailrace set table tailrace.outbox (position, topic, key, tx)';

test.each([
  [
    'is dropped',
    'drop publication tailrace',
    /^the publication tailrace does not exist/,
    `create publication tailrace for table tailrace.outbox (position, topic, key, tx)
      with (publish = 'insert', publish_via_partition_root = true)`,
  ],
  [
    'loses its table',
    'alter publication tailrace drop table tailrace.outbox',
    /does not hold tailrace.outbox/,
    'alter publication tailrace add table tailrace.outbox (position, topic, key, tx)',
  ],
  [
    'stops publishing inserts',
    `alter publication tailrace set (publish = 'update')`,
    /does not publish inserts/,
    `alter publication tailrace set (publish = 'insert')`,
  ],
  [
    'gets a row filter',
    'alter publication tailrace set table tailrace.outbox (position, topic, key, tx) where (position < 0)',
    /has a row filter/,
    RESTORED,
  ],
  [
    'loses a column',
    'alter publication tailrace set table tailrace.outbox (position, topic, key)',
    /leaves out the columns tx/,
    RESTORED,
  ],
])(
  'where the publication %s while it is streamed, polling goes on, and the WAL once it is mended',
  async (_what, breakIt, reason, mendIt) => {
    await using database = await createTestDatabase();
    const { source, ledger, relay, untilStreaming } = await streaming(database);
    const reader = await source.open(ledger, none);
    await publish(database, 2);
    while ((await judge(database.pool, ledger)).lost > 0) await take(reader, ledger);
    await database.pool.query(breakIt);
    await publish(database, 5);
    await expect(takeAll(reader, ledger)).rejects.toMatchObject({ retryable: true });
    await reader.close();
    const { reasons } = await relay(
      async ({ status }) => status.reason !== undefined && (await judge(database.pool, ledger)).lost === 0,
    );
    expect(reasons).toEqual([expect.stringMatching(reason)]);
    await database.pool.query(mendIt);
    await untilStreaming();
    await publish(database, 3);
    await relay(async () => (await judge(database.pool, ledger)).lost === 0);
    expect(await judge(database.pool, ledger)).toMatchObject(exact);
  },
);

test('what was written while the publication was away for a moment is found', async () => {
  await using database = await createTestDatabase();
  const { ledger, relay } = await streaming(database);
  await database.pool.query('alter publication tailrace drop table tailrace.outbox');
  await publish(database, 5);
  await database.pool.query('alter publication tailrace add table tailrace.outbox (position, topic, key, tx)');
  await publish(database, 5);
  await relay(async () => (await judge(database.pool, ledger)).lost === 0);
  expect(await judge(database.pool, ledger)).toMatchObject({ lost: 0, invented: 0, doubled: 0 });
});

test('a slot that can be read no further, since the publication was not there for a while, is made anew', async () => {
  await using database = await createTestDatabase();
  const { ledger, relay, untilStreaming } = await streaming(database);
  const { rows } = await database.pool.query<{ definition: string }>(
    `select format('create publication tailrace for table tailrace.outbox (%s) with (publish = ''insert'', publish_via_partition_root = true)',
      array_to_string(attnames, ', ')) as definition from pg_publication_tables where pubname = 'tailrace'`,
  );
  await database.pool.query('drop publication tailrace');
  await publish(database, 5);
  await database.pool.query(rows[0]?.definition ?? '');
  await publish(database, 5);
  await relay(async () => (await judge(database.pool, ledger)).lost === 0);
  await untilStreaming();
  expect(await judge(database.pool, ledger)).toMatchObject({ lost: 0, invented: 0, doubled: 0 });
});

test('a partition that stops being logged halts the relay', async () => {
  await using database = await createTestDatabase();
  const { ledger, relay } = await streaming(database);
  const { rows } = await database.pool.query<{ name: string }>(
    'select tableoid::regclass::text as name from tailrace.outbox limit 1',
  );
  await database.pool.query(`alter table ${rows[0]?.name ?? ''} set unlogged`);
  await publish(database, 5);
  await expect(relay(() => ledger.ids.length > 1_000)).rejects.toMatchObject({ code: 'OUTBOX_UNSAFE' });
});

test('row security that would hide messages halts polling', async () => {
  await using database = await createTestDatabase();
  const role = `relay_${database.name}`;
  await database.pool.query(`create role ${role} login password 'relay'`);
  try {
    await database.pool.query(`grant usage on schema tailrace to ${role};
      grant select on all tables in schema tailrace to ${role}`);
    const url = new URL(database.connectionString);
    url.username = role;
    url.password = 'relay';
    const source = walSource({ connectionString: url.href });
    const ledger = new Ledger();
    await publish(database, 3);
    const reader = await source.open(ledger, none);
    while (ledger.ids.length < 3) await take(reader, ledger);
    await database.pool.query('alter table tailrace.outbox enable row level security');
    await publish(database, 3);
    await expect(take(reader, ledger)).rejects.toMatchObject({ code: '42501' });
    await reader.close();
    await expect(source.open(ledger, none)).rejects.toMatchObject({ code: 'OUTBOX_UNSAFE' });
  } finally {
    await database.pool.query(`drop owned by ${role}; drop role ${role}`);
  }
});

test('a failover slot is made where the server knows them, unless told otherwise', async () => {
  await using database = await createTestDatabase();
  const failover = async (): Promise<unknown> => {
    const { rows } = await database.pool.query<{ failover: unknown }>(
      `select coalesce((to_jsonb(s) ->> 'failover')::boolean, false) as failover ${SLOT_OF_DATABASE.replace('slots', 'slots s')}`,
    );
    return rows[0]?.failover;
  };
  const { rows } = await database.pool.query<{ version: number }>(
    `select current_setting('server_version_num')::int as version`,
  );
  await streaming(database);
  expect(await failover()).toBe((rows[0]?.version ?? 0) >= 170_000);
  await dropSlot(database);
  const source = walSource({ connectionString: database.connectionString, failoverSlot: false });
  await relayUntil(source, new Ledger(), ({ status }) => status.mode === 'wal');
  expect(await failover()).toBe(false);
});

test('a slot that nothing can be read from is dropped, so that it holds no WAL', async () => {
  await using database = await createTestDatabase();
  const { ledger, source } = await streaming(database);
  await database.pool.query('drop publication tailrace');
  const reader = await source.open(ledger, none);
  const ended = expect(takeAll(reader, ledger)).rejects.toThrow();
  await until(async () => (await slots(database)) === 0);
  await reader.close();
  await ended;
});
