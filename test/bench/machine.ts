import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import type { Bench } from './suite.ts';

/** What the figures were measured on, and with what. */
export async function machine({ server, toolsDir }: Bench): Promise<Readonly<Record<string, unknown>>> {
  const { stdout } = await promisify(execFile)(join(toolsDir, 'pg_recvlogical'), ['--version']);
  return {
    cores: cpus().length,
    model: cpus()[0]?.model,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    server: await serverFacts(server.connectionString),
    recvlogical: stdout.trim(),
    packages: await versions(['pg', 'pg-transactional-outbox', 'pg-boss', 'graphile-worker']),
  };
}

async function serverFacts(connectionString: string): Promise<Readonly<Record<string, string>>> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  const names = ['server_version', 'fsync', 'synchronous_commit', 'shared_buffers', 'max_wal_size', 'wal_level'];
  const { rows } = await client.query<{ name: string; value: string }>(
    'select name, current_setting(name) as value from unnest($1::text[]) name',
    [names],
  );
  await client.end();
  return Object.fromEntries(rows.map(({ name, value }) => [name, value]));
}

async function versions(names: readonly string[]): Promise<Readonly<Record<string, string>>> {
  const folder = new URL('../../node_modules/', import.meta.url);
  const found = names.map(async (name) => {
    const manifest = JSON.parse(await readFile(new URL(`${name}/package.json`, folder), 'utf8')) as { version: string };
    return [name, manifest.version] as const;
  });
  return Object.fromEntries(await Promise.all(found));
}
