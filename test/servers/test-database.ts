import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';
import { withDatabase } from './postgres-setup.ts';
import { openPool } from './pool.ts';

/** A migrated database of one's own. */
export interface TestDatabase extends AsyncDisposable {
  /** Unique on the server, so fit for whatever else must be: a slot, a group. */
  readonly name: string;
  /** Of a superuser. */
  readonly connectionString: string;
  /** Up to 20 connections. */
  readonly pool: pg.Pool;
}

export interface TestDatabaseOptions {
  /** `false` for a database with nothing in it. @defaultValue true */
  readonly migrated?: boolean;
}

/**
 * Copies the run's template. Dispose drops the copy with its replication slots, and cuts off whoever is still connected.
 * For tests of the projects postgres-18, postgres-17 and postgres-15.
 */
export async function createTestDatabase({ migrated = true }: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const testServer = inject('testServer');
  const { adminUrl } = testServer;
  const template = migrated ? testServer.template : 'template0';
  const name = `test_${randomBytes(6).toString('hex')}`;
  // File copy adds next to nothing to the WAL, which every slot on the server has to read.
  const sql = `create database ${name} template ${template} strategy file_copy`;
  await asAdmin(adminUrl, (admin) => unlessInUse(() => admin.query(sql)));
  const connectionString = withDatabase(adminUrl, name);
  const pool = openPool({ connectionString, max: 20 });
  const dispose = async (): Promise<void> => {
    await closePool(pool);
    await asAdmin(adminUrl, (admin) => dropDatabase(admin, name));
  };
  return { name, connectionString, pool, [Symbol.asyncDispose]: dispose };
}

/** A test that fails may leave clients checked out: the pool's end would wait for them for ever. */
async function closePool(pool: pg.Pool): Promise<void> {
  const ended = pool.ended ? Promise.resolve() : pool.end();
  if (pool.totalCount === pool.idleCount) await ended;
}

async function dropDatabase(admin: pg.Client, name: string): Promise<void> {
  await admin.query(`alter database ${name} allow_connections false`); // or a client that reconnects takes its slot again
  while (await hasSlots(admin, name)) {
    const inDatabase = 'from pg_replication_slots where database = $1';
    await admin.query(`select pg_terminate_backend(active_pid, 10000) ${inDatabase} and active`, [name]);
    await admin.query(`select pg_drop_replication_slot(slot_name) ${inDatabase} and not active`, [name]);
  }
  await unlessInUse(() => admin.query(`drop database ${name} with (force)`));
}

async function hasSlots(admin: pg.Client, database: string): Promise<boolean> {
  const { rowCount } = await admin.query('select from pg_replication_slots where database = $1', [database]);
  return rowCount !== 0;
}

const OBJECT_IN_USE = '55006';
const ATTEMPTS = 12;

/** The server waits five seconds for others to leave the database; on a slow machine that can be too short. */
async function unlessInUse(action: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await action();
      return;
    } catch (error) {
      if ((error as pg.DatabaseError).code !== OBJECT_IN_USE || attempt === ATTEMPTS) throw error;
    }
  }
}

async function asAdmin(adminUrl: string, action: (admin: pg.Client) => Promise<unknown>): Promise<void> {
  const admin = new pg.Client(adminUrl);
  await admin.connect();
  try {
    await action(admin);
  } finally {
    await admin.end();
  }
}
