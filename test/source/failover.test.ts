import { join } from 'node:path';
import { expect, test } from 'vitest';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { startLocalServer, type LocalServer } from '../../src/postgres/local-server.ts';
import { conninfoOf, copyCluster } from '../servers/copy-cluster.ts';
import { withDatabase } from '../servers/postgres-setup.ts';
import { relayUntil, until } from './harness.ts';
import { judge, Ledger } from './ledger.ts';
import { startOwnServer, temporaryFolder, type OwnServer } from './own-server.ts';
import { createCounters, writeAll } from './writers.ts';
import { openPool } from '../servers/pool.ts';

const exact = { lost: 0, invented: 0, doubled: 0, reordered: 0 };

/** Starts a standby of a server from a copy of its data folder. */
async function startStandby({ server, pool }: OwnServer, dataDir: string): Promise<LocalServer> {
  await pool.query(`select pg_create_physical_replication_slot('standby', true)`);
  const url = server.connectionString;
  await copyCluster({ url, dataDir: server.dataDir }, dataDir);
  return startLocalServer({
    dataDir,
    settings: {
      primary_conninfo: conninfoOf(url, 'shop'),
      primary_slot_name: 'standby',
      hot_standby_feedback: 'on',
      sync_replication_slots: 'on',
    },
  });
}

test('a promoted standby with a copy of the slot is streamed from, and nothing is lost or brought twice', async () => {
  await using folder = await temporaryFolder();
  await using primary = await startOwnServer({
    dataDir: join(folder.path, 'primary'),
    settings: { synchronized_standby_slots: 'standby' },
  });
  const { pool } = primary;
  await createCounters(pool, 5);
  await using standby = await startStandby(primary, join(folder.path, 'standby'));
  const connectionString = withDatabase(standby.connectionString, 'shop');
  const standbyPool = openPool({ connectionString, max: 5 });

  const ledger = new Ledger();
  const source = walSource({ connectionString: primary.connectionString });
  await writeAll(pool, { writers: 2, transactions: 20, keys: 5, seed: 1 });
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  for (let seed = 2; ; seed++) {
    await writeAll(pool, { writers: 2, transactions: 5, keys: 5, seed });
    await relayUntil(source, ledger, async () => (await judge(pool, ledger)).lost === 0);
    await pool.query('select pg_log_standby_snapshot()');
    const { rows } = await standbyPool.query<{ ready: boolean }>(
      'select synced and not temporary and invalidation_reason is null as ready from pg_replication_slots where failover',
    );
    if (rows[0]?.ready === true) break;
  }
  await writeAll(pool, { writers: 2, transactions: 20, keys: 5, seed: 1000 }); // not read before the failover
  const { rows } = await pool.query<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
  await until(async () => {
    const replayed = await standbyPool.query('select where pg_last_wal_replay_lsn() >= $1', [rows[0]?.lsn]);
    return replayed.rowCount === 1;
  });
  await primary[Symbol.asyncDispose]();
  await standbyPool.query('select pg_promote(true, 60)');

  const reasons: string[] = [];
  const promoted = walSource({ connectionString });
  const met = await relayUntil(promoted, ledger, async () => (await judge(standbyPool, ledger)).lost === 0);
  reasons.push(...met.reasons);
  await writeAll(standbyPool, { writers: 2, transactions: 20, keys: 5, seed: 1001 });
  await relayUntil(promoted, ledger, async () => (await judge(standbyPool, ledger)).lost === 0);
  expect(reasons).toEqual([]); // it never had to poll
  expect(await judge(standbyPool, ledger)).toMatchObject(exact);
  await standbyPool.end();
});
