import { join } from 'node:path';
import { expect, test } from 'vitest';
import { pollingSource } from '../../src/source/polling/polling-source.ts';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { findPostgres } from '../servers/find-postgres.ts';
import { none, publish, relayUntil, takeAll, until } from './harness.ts';
import { judge, Ledger } from './ledger.ts';
import { makeCertificates, runOnData, startOwnServer, temporaryFolder } from './own-server.ts';
import { createCounters, writeAll } from './writers.ts';

const exact = { lost: 0, invented: 0, doubled: 0, reordered: 0 };
const NOISE = `insert into noise select repeat('x', 1000) from generate_series(1, 8000)`;

test('positions above 4 GiB and transactions above 2^32 are told apart as any others', async ({ skip }) => {
  const found = await findPostgres('15'); // the packages with newer ones have no pg_resetwal
  if (!('binDir' in found)) skip('the run uses a server that was running already');
  const { binDir } = found as { readonly binDir: string };
  await using folder = await temporaryFolder();
  const dataDir = join(folder.path, 'data');
  await using first = await startOwnServer({ binDir, dataDir });
  await first[Symbol.asyncDispose]();
  await runOnData(binDir, 'pg_resetwal', dataDir, ['-l', '0000000100000000000000FF', '-e', '1', '-D']);
  await using server = await startOwnServer({ binDir, dataDir });
  const { pool, connectionString } = server;
  const below = async (): Promise<boolean> => {
    const { rows } = await pool.query<{ below: boolean }>(`select pg_current_wal_insert_lsn() < '1/0' as below`);
    return rows[0]?.below === true;
  };
  expect(await below()).toBe(true);
  await createCounters(pool, 5);
  await pool.query('create table noise (text text)');
  const source = walSource({ connectionString });
  const ledger = new Ledger();
  await writeAll(pool, { writers: 2, transactions: 20, keys: 5, seed: 1 });
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  for (let seed = 2; await below(); seed++) {
    await pool.query(NOISE);
    await writeAll(pool, { writers: 3, transactions: 20, keys: 5, seed });
    await relayUntil(source, ledger, async () => (await judge(pool, ledger)).lost === 0);
  }
  await writeAll(pool, { writers: 3, transactions: 20, keys: 5, seed: 99 });
  await relayUntil(pollingSource({ connectionString }), ledger, async () => (await judge(pool, ledger)).lost === 0);
  await writeAll(pool, { writers: 3, transactions: 20, keys: 5, seed: 100 });
  await relayUntil(source, ledger, async () => (await judge(pool, ledger)).lost === 0);
  expect(await judge(pool, ledger)).toMatchObject(exact);
  const { rows } = await pool.query<{ above: boolean }>('select min(tx) > 4294967296 as above from tailrace.outbox');
  expect(rows).toEqual([{ above: true }]);
});

test('a slot whose WAL the server has removed is created anew while polling delivers', async () => {
  await using folder = await temporaryFolder();
  await using server = await startOwnServer({
    tempDir: folder.path,
    settings: { max_slot_wal_keep_size: '32MB', min_wal_size: '32MB', max_wal_size: '32MB' },
  });
  const { pool, connectionString } = server;
  const source = walSource({ connectionString });
  const ledger = new Ledger();
  await publish(server, 3);
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  const reader = await source.open(ledger, none);
  await publish(server, 3);
  await pool.query('create table noise (text text)');
  await until(async () => {
    await pool.query(NOISE);
    await pool.query('checkpoint');
    const { rows } = await pool.query<{ status: string }>('select wal_status as status from pg_replication_slots');
    return rows[0]?.status === 'lost';
  });
  await expect(takeAll(reader, new Ledger())).rejects.toMatchObject({ code: 'REPLICATION_FAILED', retryable: true });
  await reader.close();
  await publish(server, 3);
  const { reasons } = await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  expect(reasons[0]).toMatch(/^creating the replication slot/);
  await publish(server, 3);
  await relayUntil(source, ledger, async () => (await judge(pool, ledger)).lost === 0);
  expect(await judge(pool, ledger)).toMatchObject(exact);
});

test('where no slot is left, polling delivers until there is one', async () => {
  await using folder = await temporaryFolder();
  await using server = await startOwnServer({ tempDir: folder.path, settings: { max_replication_slots: '1' } });
  const { pool, connectionString } = server;
  const source = walSource({ connectionString });
  const ledger = new Ledger();
  await pool.query(`select pg_create_physical_replication_slot('other')`);
  await publish(server, 3);
  const reader = await source.open(ledger, none);
  const ended = expect(takeAll(reader, ledger)).rejects.toThrow();
  await until(() => reader.status.reason?.includes('all replication slots are in use') === true);
  await until(() => ledger.ids.length === 3);
  await pool.query(`select pg_drop_replication_slot('other')`);
  await until(() => reader.status.mode === 'wal');
  await pool.query('select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where active');
  await ended;
  await reader.close();
  expect(await judge(pool, ledger)).toMatchObject(exact);
});

test('both connections are encrypted as the URL says, or are not made', async () => {
  await using folder = await temporaryFolder();
  const dataDir = join(folder.path, 'data');
  await using plain = await startOwnServer({ dataDir });
  const withTls = (url: string, parameters: Record<string, string>, host = '127.0.0.1'): string => {
    const changed = new URL(url);
    changed.hostname = host;
    for (const [name, value] of Object.entries(parameters)) changed.searchParams.set(name, value);
    return changed.href;
  };
  for (const make of [walSource, pollingSource]) {
    const refused = make({ connectionString: withTls(plain.connectionString, { sslmode: 'verify-full' }) });
    await expect(refused.open(new Ledger(), none)).rejects.toMatchObject({ code: 'TLS_REFUSED', retryable: false });
  }
  await plain[Symbol.asyncDispose]();

  const { ca, cert, key } = await makeCertificates(folder.path, 'server', dataDir);
  const other = await makeCertificates(folder.path, 'other', dataDir);
  const settings = { ssl: 'on', ssl_cert_file: cert, ssl_key_file: key };
  await using server = await startOwnServer({ dataDir, settings });
  const { pool, connectionString } = server;
  await expect(
    walSource({ connectionString: withTls(connectionString, { sslmode: 'verify-full', sslrootcert: other.ca }) }).open(
      new Ledger(),
      none,
    ),
  ).rejects.toMatchObject({ code: 'TLS_REFUSED', retryable: false });
  await expect(
    walSource({
      connectionString: withTls(connectionString, { sslmode: 'verify-full', sslrootcert: ca }, 'localhost'),
    }).open(new Ledger(), none),
  ).rejects.toMatchObject({ code: 'TLS_REFUSED', message: expect.stringContaining('localhost') as string });

  const source = walSource({
    connectionString: withTls(connectionString, { sslmode: 'verify-full', sslrootcert: ca }),
  });
  const ledger = new Ledger();
  await publish(server, 3);
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  const reader = await source.open(ledger, none);
  const { rows } = await pool.query<{ name: string; ssl: boolean }>(
    `select a.application_name as name, s.ssl from pg_stat_activity a join pg_stat_ssl s using (pid)
      where a.application_name in ('tailrace relay control', 'tailrace relay wal') order by 1`,
  );
  expect(rows).toEqual([
    { name: 'tailrace relay control', ssl: true },
    { name: 'tailrace relay wal', ssl: true },
  ]);
  await reader.close();
  await publish(server, 50_000); // more than is held in memory: reading stops, and goes on
  await relayUntil(source, ledger, () => ledger.ids.length >= 50_003);
  expect(await judge(pool, ledger)).toMatchObject(exact);
});
