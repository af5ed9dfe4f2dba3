import { execFile } from 'node:child_process';
import { chown, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type pg from 'pg';
import { pause } from '../../src/base/signal.ts';
import { type LocalServer, startLocalServer } from '../../src/postgres/local-server.ts';
import { closeClient, openClient } from '../../src/postgres/connection.ts';
import type { ServerSettings } from '../../src/postgres/server-settings.ts';

const run = promisify(execFile);
const LOOK_MS = 50;
const PATIENCE_MS = 60_000;

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
    await copyCluster(url, dataDir, standbyDir);
    const { hostname, port, username, password } = new URL(url);
    const server = await startLocalServer({
      binDir,
      dataDir: standbyDir,
      settings: {
        ...settings,
        primary_conninfo: `host=${hostname} port=${port} user=${username} password=${password}`,
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

/** A base backup, as the low-level interface makes one: https://www.postgresql.org/docs/current/continuous-archiving.html */
async function copyCluster(url: string, from: string, to: string): Promise<void> {
  const client = await openClient({ connectionString: url, applicationName: 'torture backup' });
  try {
    await client.query(`select pg_backup_start('torture', true)`);
    // Files that leave while they are copied make it fail, and are of no account.
    await run('cp', ['-a', from, to]).catch(() => undefined);
    const { rows } = await client.query<{ labelfile: string }>('select labelfile from pg_backup_stop(false)');
    await rm(join(to, 'postmaster.pid'), { force: true });
    await rm(join(to, 'postmaster.opts'), { force: true });
    await run('/bin/sh', ['-c', 'rm -rf "$0"/*', join(to, 'pg_replslot')]);
    await writeAsOwner(to, 'backup_label', rows[0]?.labelfile ?? '');
    await writeAsOwner(to, 'standby.signal', '');
  } finally {
    await closeClient(client);
  }
}

async function writeAsOwner(folder: string, name: string, text: string): Promise<void> {
  const path = join(folder, name);
  const { uid, gid } = await stat(folder);
  await writeFile(path, text, { mode: 0o600 });
  await chown(path, uid, gid);
}
