import type pg from 'pg';
import { pause } from '../../src/base/signal.ts';
import { type LocalServer, startLocalServer } from '../../src/postgres/local-server.ts';
import { closeClient, openClient } from '../../src/postgres/connection.ts';
import type { ServerSettings } from '../../src/postgres/server-settings.ts';
import { conninfoOf, copyCluster } from '../servers/copy-cluster.ts';

const LOOK_MS = 50;
const PATIENCE_MS = 120_000;

export interface StandbyOptions {
  /** Of the primary. */
  readonly url: string;
  /** Of the primary. */
  readonly dataDir: string;
  /** Where the standby's data goes. */
  readonly standbyDir: string;
  readonly binDir: string;
  readonly settings: ServerSettings;
}

/** A standby that streams from a primary, without keeping it waiting. */
export class Standby implements AsyncDisposable {
  readonly #server: LocalServer;
  readonly #client: pg.Client;

  private constructor(server: LocalServer, client: pg.Client) {
    this.#server = server;
    this.#client = client;
  }

  /** Resolves once it streams. */
  static async start({ url, dataDir, standbyDir, binDir, settings }: StandbyOptions): Promise<Standby> {
    await copyCluster({ url, dataDir }, standbyDir);
    const server = await startLocalServer({
      binDir,
      dataDir: standbyDir,
      settings: {
        ...settings,
        primary_conninfo: conninfoOf(url),
      },
    });
    const client = await openClient({ connectionString: server.connectionString, applicationName: 'torture standby' });
    const standby = new Standby(server, client);
    await standby.#receiver();
    return standby;
  }

  /** While `act` runs, it receives nothing of what is committed. */
  async behind(act: () => Promise<void>): Promise<void> {
    const pid = await this.#receiver();
    process.kill(pid, 'SIGSTOP');
    try {
      await act();
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  }

  /** Resolves once it takes writes. */
  async promote(): Promise<void> {
    await this.#client.query('select pg_promote(false)'); // one that waited would hold the replay up with its snapshot
    await this.#until('select not pg_is_in_recovery() as found', 'was not promoted');
  }

  /** Its data stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    await closeClient(this.#client);
    await this.#server.stop();
  }

  /** The process that receives WAL, once there is one. */
  #receiver(): Promise<number> {
    return this.#until(`select pid as found from pg_stat_wal_receiver where status = 'streaming'`, 'does not stream');
  }

  /** Asks until there is an answer that is not false. */
  async #until<Found>(sql: string, failure: string): Promise<Found> {
    const deadline = performance.now() + PATIENCE_MS;
    while (performance.now() < deadline) {
      const { rows } = await this.#client.query<{ found: Found }>(sql);
      if (rows[0] !== undefined && rows[0].found !== false) return rows[0].found;
      await pause(LOOK_MS);
    }
    throw new Error(`The standby ${failure}.`);
  }
}
