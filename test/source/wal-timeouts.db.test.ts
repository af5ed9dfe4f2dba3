import { expect, test as base } from 'vitest';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { createTcpProxy } from '../broker/postgres/tcp-proxy.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { none, publish, relayUntil, take, takeAll, until } from './harness.ts';
import { judge, Ledger } from './ledger.ts';

/** These tests wait more than they work. */
const test = base.concurrent;

const exact = { lost: 0, invented: 0, doubled: 0, reordered: 0 };

/** The same database, for sessions with another `wal_sender_timeout`. */
function withTimeout(connectionString: string, timeout: string): string {
  const url = new URL(connectionString);
  url.searchParams.set('options', `-c wal_sender_timeout=${timeout}`);
  return url.href;
}

/** The server's process that streams to the relay, and how many seconds ago it was started. */
async function walsender(database: TestDatabase): Promise<{ pid: number; seconds: number } | undefined> {
  const { rows } = await database.pool.query<{ pid: number; seconds: number }>(
    `select pid, extract(epoch from clock_timestamp() - backend_start)::float8 as seconds
      from pg_stat_activity where datname = current_database() and application_name = 'tailrace relay wal'`,
  );
  return rows[0];
}

test('a relay that reads no further for longer than wal_sender_timeout keeps its stream', async () => {
  await using database = await createTestDatabase();
  const source = walSource({ connectionString: withTimeout(database.connectionString, '10s') });
  const ledger = new Ledger();
  await publish(database, 1);
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  const reader = await source.open(ledger, none);
  await publish(database, 60_000); // more than is held in memory: reading stops
  const first = await walsender(database);
  await until(async () => ((await walsender(database))?.seconds ?? Infinity) > 12);
  expect((await walsender(database))?.pid).toBe(first?.pid);
  while (ledger.ids.length < 60_001) await take(reader, ledger);
  await reader.close();
  expect(await judge(database.pool, ledger)).toMatchObject(exact);
});

test('a server without wal_sender_timeout is streamed from', async () => {
  await using database = await createTestDatabase();
  const source = walSource({ connectionString: withTimeout(database.connectionString, '0') });
  const ledger = new Ledger();
  await publish(database, 3);
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  await publish(database, 3);
  await relayUntil(source, ledger, () => ledger.ids.length === 6);
  expect(await judge(database.pool, ledger)).toMatchObject(exact);
});

test('a stream that falls silent is given up, and what it did not bring comes by the next one', async () => {
  await using database = await createTestDatabase();
  await using proxy = await createTcpProxy(withTimeout(database.connectionString, '3s'));
  const source = walSource({ connectionString: proxy.connectionString });
  const ledger = new Ledger();
  await publish(database, 3);
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  const reader = await source.open(ledger, none);
  proxy.hang('tailrace relay wal');
  await publish(database, 3);
  await expect(takeAll(reader, ledger)).rejects.toMatchObject({ code: 'REPLICATION_FAILED', retryable: true });
  await reader.close();
  proxy.heal('tailrace relay wal');
  await relayUntil(source, ledger, async () => (await judge(database.pool, ledger)).lost === 0);
  expect(await judge(database.pool, ledger)).toMatchObject(exact);
});

test('a network that is gone keeps a reader from nothing: not from failing, and not from closing', async () => {
  await using database = await createTestDatabase();
  await using proxy = await createTcpProxy(withTimeout(database.connectionString, '3s'));
  const source = walSource({ connectionString: proxy.connectionString });
  const ledger = new Ledger();
  await publish(database, 3);
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  const reader = await source.open(ledger, none);
  const applications = ['tailrace relay wal', 'tailrace relay control'];
  applications.forEach((name) => proxy.hang(name));
  await expect(takeAll(reader, ledger)).rejects.toMatchObject({ retryable: true });
  await reader.close();
  applications.forEach((name) => proxy.heal(name));
  await publish(database, 3);
  await relayUntil(source, ledger, async () => (await judge(database.pool, ledger)).lost === 0);
  expect(await judge(database.pool, ledger)).toMatchObject(exact);
});

test('polling over a network that is gone ends when its time is over', async () => {
  await using database = await createTestDatabase();
  await using proxy = await createTcpProxy(database.connectionString);
  const source = walSource({ connectionString: proxy.connectionString });
  const leading = new AbortController();
  const reader = await source.open(new Ledger(), leading.signal, 'polling');
  proxy.hang('tailrace relay control');
  await publish(database, 3);
  const reading = takeAll(reader, new Ledger());
  leading.abort();
  await expect(reading).rejects.toThrow();
  await reader.close();
});
