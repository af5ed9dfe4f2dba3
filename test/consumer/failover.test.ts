import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import pg from 'pg';
import { expect, test } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { startLocalServer, type LocalServer } from '../../src/postgres/local-server.ts';
import { conninfoOf, copyCluster } from '../servers/copy-cluster.ts';
import { withDatabase } from '../servers/postgres-setup.ts';
import { startOwnServer, temporaryFolder, type OwnServer } from '../source/own-server.ts';
import { Counted, EFFECT_TABLE, type Effect } from './counted.ts';
import { until } from './kit.ts';

/** A copy of a server that replays what the server writes. */
async function startStandby({ server }: OwnServer, dataDir: string): Promise<LocalServer> {
  const url = server.connectionString;
  await copyCluster({ url, dataDir: server.dataDir }, dataDir);
  return startLocalServer({ dataDir, settings: { primary_conninfo: conninfoOf(url) } });
}

/** An address that leads to one server, and later to another. */
class Address implements AsyncDisposable {
  readonly #sockets = new Set<Socket>();
  readonly #listener = createServer((client) => {
    const server = connect(this.#port, '127.0.0.1');
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.on('error', () => undefined);
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  #port: number;

  constructor(port: number) {
    this.#port = port;
  }

  async urlFor(connectionString: string): Promise<string> {
    this.#listener.listen(0, '127.0.0.1');
    await once(this.#listener, 'listening');
    const url = new URL(connectionString);
    url.port = String((this.#listener.address() as AddressInfo).port);
    return url.href;
  }

  /** Every connection ends; the next ones go to another server. */
  leadTo(port: number): void {
    this.#port = port;
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#listener.close();
    await once(this.#listener, 'close');
  }
}

/** Publishes the numbers of a key and appends them, in the place of a relay. */
async function publish(
  pool: pg.Pool,
  connectionString: string,
  key: string,
  numbers: readonly number[],
): Promise<void> {
  const client = await pool.connect();
  await client.query('begin');
  const events = numbers.map((n) => Counted({ key, n }));
  await createOutbox().publish(client, events);
  const { rows } = await client.query<{ position: string }>(
    'select position from tailrace.outbox where message_id = any($1) order by position',
    [events.map(({ id }) => id)],
  );
  await client.query('commit');
  client.release();
  const log = postgresLog({ connectionString, partitions: 1 });
  const writer = await log.acquireWriter({ holder: 'test', leaseMs: 60_000, signal: new AbortController().signal });
  const { topic } = events[0] ?? {};
  if (topic === undefined) return;
  await writer.partitionCount(topic);
  await writer.append({
    appends: [{ topic, partition: 0, ids: rows.map((row) => Number(row.position)) }],
    progress: key,
  });
  await log.close();
}

async function effectsOf(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query<Effect>('select key, n from effect order by id');
  return rows.map(({ key, n }) => `${key}${n}`);
}

test('a consumer that lives through the promotion of a standby that was behind goes on from what the standby has', async () => {
  await using folder = await temporaryFolder();
  await using primary = await startOwnServer({ dataDir: join(folder.path, 'primary') });
  await primary.pool.query(EFFECT_TABLE);
  await using standby = await startStandby(primary, join(folder.path, 'standby'));
  const promotedUrl = withDatabase(standby.connectionString, 'shop');
  const promoted = new pg.Pool({ connectionString: promotedUrl, max: 3 });
  promoted.on('error', () => undefined);

  await using address = new Address(primary.server.port);
  const connectionString = await address.urlFor(primary.connectionString);
  const database = new pg.Pool({ connectionString, max: 6 });
  database.on('error', () => undefined);
  const log = postgresLog({ connectionString });
  const consumer = createConsumer({
    log,
    group: 'counting',
    database,
    concurrency: 2,
    leaseMs: 300_000,
    heartbeatMs: 50,
    cursorIntervalMs: 50,
  });
  consumer.on(Counted, async ({ payload: { key, n } }, { tx }) => {
    await tx.query(`insert into effect (key, n, member) values ($1, $2, 'one')`, [key, n]);
  });
  await consumer.start();

  await publish(primary.pool, primary.connectionString, 'a', [1, 2, 3]);
  await until(async () => (await effectsOf(promoted)).length === 3);
  await promoted.query(`alter system set primary_conninfo = ''`);
  await promoted.query('select pg_reload_conf()');
  await until(async () => (await promoted.query('select from pg_stat_wal_receiver')).rowCount === 0);
  await publish(primary.pool, primary.connectionString, 'gone', [1, 2, 3]); // the standby never hears of it
  await until(async () => (await effectsOf(primary.pool)).length === 6);
  await until(() => consumer.status().assignments[0]?.nextOffset === 6n);

  await promoted.query('select pg_promote(true, 60)');
  await until(async () => {
    const { rows } = await promoted.query<{ found: boolean }>('select not pg_is_in_recovery() as found');
    return rows[0]?.found === true;
  });
  address.leadTo(standby.port);
  await promoted.query(
    `update tailrace.relay_lease set timeline = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int,
       expires_at = clock_timestamp()`,
  );
  await publish(promoted, promotedUrl, 'b', [1, 2, 3]); // at the offsets of what is gone
  await until(async () => (await effectsOf(promoted)).length >= 6);
  await until(() => consumer.status().assignments[0]?.nextOffset === 6n);
  expect(await effectsOf(promoted)).toEqual(['a1', 'a2', 'a3', 'b1', 'b2', 'b3']);

  await consumer.stop();
  await log.close();
  await database.end();
  await promoted.end();
});
