import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import type pg from 'pg';
import { expect } from 'vitest';
import { startLocalServer } from '../../src/postgres/local-server.ts';
import { conninfoOf, copyCluster } from '../servers/copy-cluster.ts';
import { withDatabase } from '../servers/postgres-setup.ts';
import { startOwnServer, temporaryFolder, type OwnServer } from './own-server.ts';
import { openPool } from '../servers/pool.ts';

/** Lets a relay append after a promotion, as an operator does: what the standby lacked is given up. */
export const ACCEPT_TIMELINE = `update tailrace.relay_lease
  set timeline = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int, expires_at = clock_timestamp()`;

/** A server and its standby, behind one address that leads to the one who takes writes. */
export interface FailoverPair extends AsyncDisposable {
  readonly primary: OwnServer;
  /** Connections to the standby, and its address. */
  readonly promoted: pg.Pool;
  readonly promotedUrl: string;
  /** Leads to the primary until {@link promote}, then to the standby. */
  readonly connectionString: string;
  /** The standby receives nothing from now on. */
  fallBehind(): Promise<void>;
  /** The standby takes writes, and the address leads there; every connection through the address ends. */
  promote(): Promise<void>;
}

export async function startFailoverPair(): Promise<FailoverPair> {
  await using parts = new AsyncDisposableStack();
  const folder = parts.use(await temporaryFolder());
  const primary = parts.use(await startOwnServer({ dataDir: join(folder.path, 'primary') }));
  const standbyDir = join(folder.path, 'standby');
  const primaryUrl = primary.server.connectionString;
  await copyCluster({ url: primaryUrl, dataDir: primary.server.dataDir }, standbyDir);
  const standby = await startLocalServer({
    dataDir: standbyDir,
    settings: { primary_conninfo: conninfoOf(primaryUrl) },
  });
  parts.defer(() => standby.stop());
  const promotedUrl = withDatabase(standby.connectionString, 'shop');
  const promoted = openPool({ connectionString: promotedUrl, max: 3 });
  parts.defer(() => promoted.end());
  const address = parts.use(new Address(primary.server.port));
  const connectionString = await address.urlFor(primary.connectionString);
  const owned = parts.move();
  return {
    primary,
    promoted,
    promotedUrl,
    connectionString,
    fallBehind: async () => {
      await promoted.query(`alter system set primary_conninfo = ''`);
      await promoted.query('select pg_reload_conf()');
      await expect
        .poll(async () => (await promoted.query('select from pg_stat_wal_receiver')).rowCount, { timeout: 60_000 })
        .toBe(0);
    },
    promote: async () => {
      await promoted.query('select pg_promote(true, 60)');
      const isStandby = async (): Promise<unknown> =>
        (await promoted.query<{ found: boolean }>('select pg_is_in_recovery() as found')).rows[0]?.found;
      await expect.poll(isStandby, { timeout: 60_000 }).toBe(false);
      address.leadTo(standby.port);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
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
