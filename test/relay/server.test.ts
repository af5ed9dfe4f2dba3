import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { expect, test } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { startLocalServer, type LocalServer, type LocalServerOptions } from '../../src/postgres/local-server.ts';
import { migrate } from '../../src/postgres/migrations.ts';
import { createRelay, walSource, type Relay } from '../../src/relay/index.ts';
import { openPool } from '../servers/pool.ts';

const patient = { timeout: 60_000, interval: 20 };

/** Runs `use` with a folder for a cluster that outlives its servers. */
async function withCluster(
  use: (start: (options?: LocalServerOptions) => Promise<LocalServer>) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'tailrace-test-'));
  await chmod(folder, 0o755); // the server may run as another user
  try {
    await use((options) => startLocalServer({ dataDir: join(folder, 'data'), ...options }));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function query<Row extends pg.QueryResultRow>(connectionString: string, sql: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query<Row>(sql)).rows;
  } finally {
    await client.end();
  }
}

async function migrated({ connectionString }: LocalServer): Promise<void> {
  const pool = openPool({ connectionString, max: 1 });
  await migrate(pool);
  await pool.end();
}

const publish = (connectionString: string, messages: number): Promise<unknown> =>
  query(
    connectionString,
    `select tailrace.publish('orders', 'k', 'Counted', to_json(n)) from generate_series(1, ${messages}) n`,
  );

async function idsInLog(connectionString: string): Promise<number[]> {
  const rows = await query<{ id: string }>(
    connectionString,
    'select id from tailrace.log_entry e, unnest(ids) with ordinality x (id, n) order by partition, base, n',
  );
  return rows.map(({ id }) => Number(id));
}

function relayOf(connectionString: string, warnings: object[]): { relay: Relay; close: () => Promise<void> } {
  const logger = { ...silentLogger, warn: (fields: object) => void warnings.push(fields) };
  const log = postgresLog({ connectionString });
  const relay = createRelay({ source: walSource({ connectionString, logger }), log, logger });
  const close = async (): Promise<void> => {
    await relay.stop();
    await log.close();
  };
  return { relay, close };
}

const upTo = (last: number): number[] => Array.from({ length: last }, (_, n) => n + 1);

test('polls on a server with wal_level = replica, says so, and streams once it is logical', async () => {
  await withCluster(async (start) => {
    const warnings: object[] = [];
    {
      await using server = await start({ settings: { wal_level: 'replica' } });
      await migrated(server);
      const { relay, close } = relayOf(server.connectionString, warnings);
      await relay.start();
      await publish(server.connectionString, 10);
      await expect.poll(() => relay.status().appended, patient).toBe(10);
      const source = { mode: 'polling', reason: expect.stringContaining('wal_level is replica') as string };
      expect(relay.status().source).toEqual(source);
      expect(warnings).toContainEqual(source);
      await close();
    }
    await using server = await start({ settings: { wal_level: 'logical' } });
    await publish(server.connectionString, 10);
    const { relay, close } = relayOf(server.connectionString, warnings);
    await relay.start();
    await expect.poll(() => relay.status().source, patient).toEqual({ mode: 'wal' });
    await publish(server.connectionString, 10);
    await expect.poll(() => relay.status().appended, patient).toBe(20);
    await close();
    expect(await idsInLog(server.connectionString)).toEqual(upTo(30));
  });
});

test('goes on after a restart and a crash of the server under it', async () => {
  await withCluster(async (start) => {
    const warnings: object[] = [];
    let server = await start();
    const { connectionString, port } = server;
    await migrated(server);
    const { relay, close } = relayOf(connectionString, warnings);
    await relay.start();
    const stops = [() => server.stop(), () => crash(server)];
    for (const [round, stop] of stops.entries()) {
      await publish(connectionString, 20);
      await stop();
      server = await start({ port });
      await publish(connectionString, 20);
      await expect.poll(() => idsInLog(connectionString), patient).toHaveLength(40 * (round + 1));
    }
    expect(warnings.length).toBeGreaterThan(1);
    await close();
    const ids = await idsInLog(connectionString);
    expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b));
    await server.stop();
  });
});

/** Ends it without a checkpoint, as a crash does; `stop` then only clears up. */
async function crash(server: LocalServer): Promise<void> {
  process.kill(server.pid, 'SIGQUIT');
  await server.stop();
}
