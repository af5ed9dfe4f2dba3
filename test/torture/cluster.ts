import { join } from 'node:path';
import { type LocalServer, startLocalServer } from '../../src/postgres/local-server.ts';
import { closeClient, openClient } from '../../src/postgres/connection.ts';
import { findPostgres, type PostgresVersion } from '../servers/find-postgres.ts';
import { Standby } from './standby.ts';
import { waitUntil } from './wait-until.ts';

const SETTINGS = {
  max_connections: '120',
  max_wal_senders: '20',
  max_replication_slots: '20',
  shared_buffers: '256MB',
  wal_sender_timeout: '6s',
  max_wal_size: '512MB',
  checkpoint_timeout: '30min',
  deadlock_timeout: '1s',
} as const;

const STANDBY_SLOT = 'torture_standby';
/**
 * A slot can be copied from the first moment on at which it needs nothing that is older than the standby. It moves on with what
 * the server logs of running transactions, and, while there always are some, with changes of the catalog.
 */
const NUDGE = ['do $$ begin create temp table nudge (); drop table nudge; end $$', 'select pg_log_standby_snapshot()'];
/** Of a standby that keeps copies of the primary's slots. */
const STANDBY_SETTINGS = {
  primary_slot_name: STANDBY_SLOT,
  hot_standby_feedback: 'on',
  sync_replication_slots: 'on',
} as const;

/** How long a server may take to start or to end: on a busy machine it has much to write or to recover. */
const PATIENCE_MS = 180_000;

/** How a server is brought down: in good order, at once, or by the end of its postmaster. */
export type Shutdown = 'fast' | 'immediate' | 'kill';

const SHUTDOWN_SIGNAL = { fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const;

/** A server that can be brought down and started again in its folder, on its port. */
export class TortureCluster implements AsyncDisposable {
  readonly version: PostgresVersion;
  readonly #binDir: string;
  #dataDir: string;
  #server: LocalServer;

  private constructor(version: PostgresVersion, server: LocalServer, binDir: string, dataDir: string) {
    this.version = version;
    this.#server = server;
    this.#binDir = binDir;
    this.#dataDir = dataDir;
  }

  /** @param folder can be reached by the system user who runs the server. */
  static async start(version: PostgresVersion, folder: string, name = 'data'): Promise<TortureCluster> {
    const binDir = await binDirOf(version);
    const dataDir = join(folder, name);
    return new TortureCluster(
      version,
      await startLocalServer({ binDir, dataDir, settings: SETTINGS, startTimeoutMs: PATIENCE_MS }),
      binDir,
      dataDir,
    );
  }

  /** Whether the postmaster runs. */
  get isUp(): boolean {
    try {
      return process.kill(this.#server.pid, 0);
    } catch {
      return false;
    }
  }

  get url(): string {
    return this.#server.connectionString;
  }

  get pid(): number {
    return this.#server.pid;
  }

  async shutDown(how: Shutdown): Promise<void> {
    process.kill(this.#server.pid, SHUTDOWN_SIGNAL[how]);
    await waitUntil(() => !this.isUp, PATIENCE_MS); // else it would be ended the hard way sooner
    await this.#server.stop();
  }

  async startAgain(): Promise<void> {
    await this.#server.stop(); // of one that has ended, this removes what it left
    this.#server = await this.#start(this.#dataDir, this.#server.port);
  }

  /** Shuts down in good order, lets `act` change files of the data folder, and starts again. */
  async whileDown(act: (dataDir: string) => Promise<void>): Promise<void> {
    await this.shutDown('fast');
    await act(this.#dataDir);
    await this.startAgain();
  }

  #start(dataDir: string, port: number): Promise<LocalServer> {
    return startLocalServer({ binDir: this.#binDir, dataDir, settings: SETTINGS, port, startTimeoutMs: PATIENCE_MS });
  }

  /**
   * Makes a standby and lets it fall behind, ends this server, and promotes the standby, which takes its place and its port.
   * What is committed while `act` runs is gone then. With `keepsSlots`, from Postgres 17 on, the standby has copies of the
   * replication slots, and what it has not received is not sent to their readers.
   */
  async failOver(act: () => Promise<void>, keepsSlots = false): Promise<void> {
    const standbyDir = `${this.#dataDir}-standby`;
    const { port } = this.#server;
    const settings = { ...SETTINGS, ...(keepsSlots && STANDBY_SETTINGS) };
    try {
      if (keepsSlots) await this.execute(`select pg_create_physical_replication_slot('${STANDBY_SLOT}', true)`);
      const options = { url: this.url, dataDir: this.#dataDir, standbyDir, binDir: this.#binDir, settings };
      await using standby = await Standby.start(options);
      if (keepsSlots) {
        await this.execute(
          `alter system set synchronized_standby_slots = '${STANDBY_SLOT}'`,
          'select pg_reload_conf()',
        );
        await standby.hasSlots(() => this.execute(...NUDGE));
      }
      await standby.fallBehind();
      await act();
      await this.shutDown('immediate');
      await standby.promote();
    } catch (error) {
      await this.#startAlone(keepsSlots);
      throw error;
    }
    this.#dataDir = standbyDir;
    this.#server = await this.#start(standbyDir, port);
  }

  /** Without the standby that was to be. */
  async #startAlone(hadSlot: boolean): Promise<void> {
    await this.startAgain();
    if (!hadSlot) return;
    await this.execute(
      'alter system reset synchronized_standby_slots',
      'select pg_reload_conf()',
      `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '${STANDBY_SLOT}'`,
    );
  }

  async execute(...statements: readonly string[]): Promise<void> {
    const client = await openClient({ connectionString: this.url, applicationName: 'torture cluster' });
    try {
      for (const statement of statements) await client.query(statement);
    } finally {
      await closeClient(client);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop();
  }
}

async function binDirOf(version: PostgresVersion): Promise<string> {
  const found = await findPostgres(version);
  if ('binDir' in found) return found.binDir;
  throw new Error(`The faults need a server of their own: unset TAILRACE_TEST_POSTGRES_${version}_URL.`);
}
