import { describe, expect, test } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createRelay, pollingSource, walSource } from '../../src/relay/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { createCounters, randomFrom, whileWriting, writeAll } from '../source/writers.ts';
import { exact, inLog, judgeLog, patient, publishOne, relayOf, type Make } from './kit.ts';

async function killRelayBackends(database: TestDatabase): Promise<number> {
  const { rowCount } = await database.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
      where datname = $1 and pid <> pg_backend_pid() and application_name like 'tailrace%'`,
    [database.name],
  );
  return rowCount ?? 0;
}

describe.each([
  ['WAL', walSource],
  ['polling', pollingSource],
] as [string, Make][])('a relay from the %s source', (_name, make) => {
  test('brings every committed message into the log once, in order per key, without gaps', async () => {
    await using database = await createTestDatabase();
    await createCounters(database.pool, 8);
    await using relay = relayOf(database, make);
    await relay.start();
    await writeAll(database.pool, { writers: 5, transactions: 60, keys: 8, seed: 21 });
    await expect.poll(async () => (await judgeLog(database)).lost, patient).toBe(0);
    expect(await judgeLog(database)).toMatchObject(exact);
  });

  test('stays exact while its connections are killed', async () => {
    await using database = await createTestDatabase();
    await createCounters(database.pool, 8);
    await using relay = relayOf(database, make);
    await relay.start();
    let killings = 0;
    await whileWriting(database.pool, { writers: 4, transactions: 50, keys: 8, seed: 22 }, async () => {
      while (killings < 10) {
        const target = (await inLog(database)) + 60;
        await expect.poll(() => inLog(database), patient).toBeGreaterThanOrEqual(target);
        if ((await killRelayBackends(database)) > 0) killings += 1;
      }
    });
    await expect.poll(async () => (await judgeLog(database)).lost, patient).toBe(0);
    expect(await judgeLog(database)).toMatchObject(exact);
  });

  test('appends a transaction of 50,000 messages', async () => {
    await using database = await createTestDatabase();
    await using relay = relayOf(database, make);
    await relay.start();
    await database.pool.query(
      `insert into tailrace.outbox (message_id, topic, key, type, payload)
        select gen_random_uuid(), 'orders', 'key-' || n % 50, 'Counted', to_json(n) from generate_series(1, 50000) n`,
    );
    await expect.poll(() => inLog(database), patient).toBe(50_000);
    expect(await judgeLog(database)).toMatchObject(exact);
  });

  test('stops before it started, and twice; starts once', async () => {
    await using database = await createTestDatabase();
    const log = postgresLog({ connectionString: database.connectionString });
    const source = make({ connectionString: database.connectionString });
    const never = createRelay({ source, log });
    await never.stop();
    await expect(never.start()).rejects.toMatchObject({ code: 'STOPPED' });
    const relay = createRelay({ source, log });
    await relay.start();
    await expect(relay.start()).rejects.toMatchObject({ code: 'STOPPED' });
    await Promise.all([relay.stop(), relay.stop()]);
    await relay.stop();
    expect(relay.status().state).toBe('stopped');
    await log.close();
  });

  test('stands by when another takes its lease while it has nothing to do, and leads again afterwards', async () => {
    await using database = await createTestDatabase();
    await using relay = relayOf(database, make, { leaseMs: 3_000 });
    await relay.start();
    await publishOne(database);
    await expect.poll(() => inLog(database), patient).toBe(1);
    const thief = await database.pool.connect(); // stays connected: a lease of one who is gone is taken at once
    await thief.query(
      `update tailrace.relay_lease
        set epoch = epoch + 1, holder = 'thief', backend_pid = pg_backend_pid(), expires_at = clock_timestamp() + interval '1 hour'`,
    );
    await expect.poll(() => relay.status().state, patient).toBe('standby');
    await thief.query(`update tailrace.relay_lease set expires_at = clock_timestamp() where holder = 'thief'`);
    thief.release();
    await expect.poll(() => relay.status().state, patient).toBe('leading');
    await publishOne(database);
    await expect.poll(() => inLog(database), patient).toBe(2);
  });
});

describe('several relays of one log', () => {
  test('one leads; the other stands by, and takes over when the first stops', async () => {
    await using database = await createTestDatabase();
    await using first = relayOf(database, walSource);
    await using second = relayOf(database, walSource);
    await first.start();
    await second.start();
    expect([first.status().state, second.status().state]).toEqual(['leading', 'standby']);
    await first.stop();
    await expect.poll(() => second.status().state, patient).toBe('leading');
    await publishOne(database);
    await expect.poll(() => second.status().appended, patient).toBe(1);
  });

  test('taking turns at random, in either mode, they leave an exact log', async () => {
    await using database = await createTestDatabase();
    const random = randomFrom(31);
    await createCounters(database.pool, 8);
    const modes: string[] = [];
    const turns = (mode: string): number => modes.filter((had) => had === mode).length;
    await whileWriting(database.pool, { writers: 4, transactions: 50, keys: 8, seed: 23 }, async () => {
      while (turns('wal') < 4 || turns('polling') < 4) {
        const wal = random() < 0.5;
        await using relay = relayOf(database, wal ? walSource : pollingSource);
        await relay.start();
        const target = relay.status().appended + 40;
        await expect
          .poll(() => relay.status().appended >= target && (!wal || relay.status().source?.mode === 'wal'), patient)
          .toBe(true);
        modes.push(wal ? 'wal' : 'polling');
      }
    });
    await using last = relayOf(database, walSource);
    await last.start();
    await expect.poll(async () => (await judgeLog(database)).lost, patient).toBe(0);
    expect(await judgeLog(database), modes.join(' ')).toMatchObject(exact);
  });
});

test('a relay that cannot reach its server says so, goes on trying, and can be stopped', async () => {
  const connectionString = 'postgres://nobody@127.0.0.1:1/nowhere';
  const warnings: object[] = [];
  const logger = { ...silentLogger, warn: (fields: object) => void warnings.push(fields) };
  const log = postgresLog({ connectionString, logger });
  const relay = createRelay({ source: walSource({ connectionString }), log, logger });
  const starting = relay.start();
  await expect.poll(() => warnings.length, patient).toBeGreaterThan(1);
  expect(JSON.stringify(warnings)).toContain('ECONNREFUSED');
  await relay.stop();
  await starting;
  await log.close();
});

test('a relay goes on, and keeps every key in order, while its topic is given more partitions', async () => {
  await using database = await createTestDatabase();
  await createCounters(database.pool, 16);
  await using relay = relayOf(database, walSource);
  await relay.start();
  const operator = postgresLog({ connectionString: database.connectionString });
  await whileWriting(database.pool, { writers: 4, transactions: 60, keys: 16, seed: 23 }, async () => {
    for (const partitions of [9, 12, 24]) {
      const target = (await inLog(database)) + 50;
      await expect.poll(() => inLog(database), patient).toBeGreaterThanOrEqual(target);
      for (const topic of ['topic-0', 'topic-1']) await operator.addPartitions(topic, partitions);
    }
  });
  await operator.close();
  await expect.poll(async () => (await judgeLog(database)).lost, patient).toBe(0);
  // A key's partitions rise with time, so that this judges its order across the changes too.
  expect(await judgeLog(database)).toMatchObject(exact);
  expect(relay.status().state).toBe('leading');
});
