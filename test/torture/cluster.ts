import { join } from 'node:path';
import { type LocalServer, startLocalServer } from '../../src/postgres/local-server.ts';
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

/** How long a server may take to start or to end: on a busy machine it has much to write or to recover. */
const PATIENCE_MS = 180_000;

/** How a server is brought down: in good order, at once, or by the end of its postmaster. */
export type Shutdown = 'fast' | 'immediate' | 'kill';

const SHUTDOWN_SIGNAL = { fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const;

/** A server that can be brought down and started again in its folder, on its port. */
export class TortureCluster implements AsyncDisposable {
  readonly #binDir: string;
  #dataDir: string;
  #server: LocalServer;

  private constructor(server: LocalServer, binDir: string, dataDir: string) {
    this.#server = server;
    this.#binDir = binDir;
    this.#dataDir = dataDir;
  }

  /** @param folder can be reached by the system user who runs the server. */
  static async start(version: PostgresVersion, folder: string): Promise<TortureCluster> {
    const binDir = await binDirOf(version);
    const dataDir = join(folder, 'data');
    return new TortureCluster(
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
   * What is committed while `act` runs is gone then.
   */
  async failOver(act: () => Promise<void>): Promise<void> {
    const standbyDir = `${this.#dataDir}-standby`;
    const common = { binDir: this.#binDir, settings: SETTINGS };
    const { port } = this.#server;
    try {
      await using standby = await Standby.start({ ...common, url: this.url, dataDir: this.#dataDir, standbyDir });
      await standby.behind(async () => {
        await act();
        await this.shutDown('immediate');
      });
      await standby.promote();
    } catch (error) {
      await this.startAgain();
      throw error;
    }
    this.#dataDir = standbyDir;
    this.#server = await this.#start(standbyDir, port);
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
