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
      settings: { ...settings, primary_conninfo: conninfoOf(url, 'postgres') },
    });
    const client = await openClient({ connectionString: server.connectionString, applicationName: 'torture standby' });
    const standby = new Standby(server, client);
    await standby.#until(
      `select true as found from pg_stat_wal_receiver where status = 'streaming'`,
      'does not stream',
    );
    return standby;
  }

  /**
   * Resolves once it has its own copy of every slot that is to outlive the primary.
   *
   * @param nudge lets the primary's slots move on: one can be copied from where it needs nothing that is older than the standby.
   */
  async hasSlots(nudge: () => Promise<void>): Promise<void> {
    await this.#until(
      `select count(*) > 0 and bool_and(synced and not temporary) as found from pg_replication_slots where failover`,
      'has no copy of the replication slot',
      nudge,
    );
  }

  /** From now on it receives nothing of what is committed. */
  async fallBehind(): Promise<void> {
    await this.#set(`primary_conninfo = ''`);
    await this.#until('select not exists (select from pg_stat_wal_receiver) as found', 'still receives');
  }

  /** Resolves once it takes writes. */
  async promote(): Promise<void> {
    await this.#client.query('select pg_promote(false)'); // one that waited would hold the replay up with its snapshot
    await this.#until('select not pg_is_in_recovery() as found', 'was not promoted');
    await this.#client.query('alter system reset all'); // a standby of its own would begin with a copy of that
  }

  async #set(setting: string): Promise<void> {
    await this.#client.query(`alter system set ${setting}`);
    await this.#client.query('select pg_reload_conf()');
  }

  /** Its data stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    await closeClient(this.#client);
    await this.#server.stop();
  }

  /** Asks until the answer is yes, and does something before each time. */
  async #until(sql: string, failure: string, before: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    while (performance.now() < deadline) {
      await before();
      const { rows } = await this.#client.query<{ found: boolean }>(sql);
      if (rows[0]?.found === true) return;
      await pause(LOOK_MS);
    }
    throw new Error(`The standby ${failure}.`);
  }
}
