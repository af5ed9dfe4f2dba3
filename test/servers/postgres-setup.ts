import { randomBytes } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { type LocalServer, startLocalServer } from '../../src/postgres/local-server.ts';
import { migrate } from '../../src/postgres/migrations.ts';
import { type PostgresVersion, findPostgres, VERSIONS } from './find-postgres.ts';
import { openPool } from './pool.ts';

/** What a database test needs to know of the run's server. */
export interface TestServer {
  /** Of a superuser, to any database but the template. */
  readonly adminUrl: string;
  /** The migrated database that the tests' databases are copies of. Nobody connects to it. */
  readonly template: string;
}

declare module 'vitest' {
  interface ProvidedContext {
    readonly testServer: TestServer;
  }
}

const SETTINGS = {
  max_connections: '200',
  max_wal_senders: '50',
  max_replication_slots: '50',
} as const;

/**
 * Once a run, before the first test of a Postgres project: finds or starts the server, and makes the template. The
 * project's name says which version, as in postgres-18. Returns what undoes it.
 */
export default async function setUp(project: TestProject): Promise<() => Promise<void>> {
  const server = await provideServer(versionOf(project.name));
  const template = `tailrace_template_${randomBytes(6).toString('hex')}`;
  try {
    await query(server.url, `create database ${template}`);
    await migrateDatabase(withDatabase(server.url, template));
  } catch (error) {
    await server.local?.stop();
    throw error;
  }
  project.provide('testServer', { adminUrl: server.url, template });
  return async () => {
    if (server.local === undefined) await query(server.url, `drop database ${template} with (force)`);
    await server.local?.stop();
  };
}

function versionOf(projectName: string): PostgresVersion {
  const version = VERSIONS.find((each) => projectName === `postgres-${each}`);
  if (version !== undefined) return version;
  const expected = VERSIONS.map((each) => `postgres-${each}`).join(', ');
  throw new Error(`No Postgres version in the project name ${projectName}: expected one of ${expected}.`);
}

async function provideServer(version: PostgresVersion): Promise<{ url: string; local?: LocalServer }> {
  const found = await findPostgres(version);
  if ('url' in found) return { url: found.url };
  const tempDir = await memoryFolder();
  const where = tempDir === undefined ? {} : { tempDir };
  const local = await startLocalServer({ binDir: found.binDir, settings: SETTINGS, ...where });
  return { url: local.connectionString, local };
}

const ENOUGH_BYTES = 2 * 1024 ** 3;

/**
 * A folder in memory, where there is one with room. The server's settings for durability stay as they are in production,
 * so the same code runs; only the wait for a disk is gone. No test takes the power away from the machine.
 */
export async function memoryFolder(): Promise<string | undefined> {
  const folder = process.env['TAILRACE_TEST_MEMORY_DIR'] ?? '/dev/shm'; // test/run gives each run its own
  const stats = await statfs(folder).catch(() => undefined);
  return stats !== undefined && stats.bavail * stats.bsize >= ENOUGH_BYTES ? folder : undefined;
}

async function migrateDatabase(url: string): Promise<void> {
  const pool = openPool({ connectionString: url, max: 1 });
  try {
    await migrate(pool);
  } finally {
    await pool.end();
  }
}

async function query(url: string, sql: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

/** The same server and user, another database. */
export function withDatabase(url: string, database: string): string {
  const changed = new URL(url);
  changed.pathname = `/${database}`;
  return changed.href;
}
