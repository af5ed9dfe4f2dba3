import { execFile } from 'node:child_process';
import { chown, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { closeClient, openClient } from '../../src/postgres/connection.ts';

const run = promisify(execFile);

export interface RunningCluster {
  readonly url: string;
  readonly dataDir: string;
}

/**
 * Copies the data of a running server for a standby of it, as the low-level interface for base backups has it:
 * https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP
 */
export async function copyCluster({ url, dataDir: from }: RunningCluster, to: string): Promise<void> {
  const client = await openClient({ connectionString: url, applicationName: 'test backup' });
  try {
    await client.query(`select pg_backup_start('standby', true)`);
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

/** What a standby's `primary_conninfo` says of a server. */
export function conninfoOf(url: string, dbname?: string): string {
  const { hostname, port, username, password } = new URL(url);
  const words = [`host=${hostname}`, `port=${port}`, `user=${username}`, `password=${password}`];
  return [...words, ...(dbname === undefined ? [] : [`dbname=${dbname}`])].join(' ');
}

async function writeAsOwner(folder: string, name: string, text: string): Promise<void> {
  const path = join(folder, name);
  const { uid, gid } = await stat(folder);
  await writeFile(path, text, { mode: 0o600 });
  await chown(path, uid, gid);
}
