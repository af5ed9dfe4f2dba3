import type pg from 'pg';
import { closeClient, openClient } from '../../postgres/connection.ts';
import { linkToParent, work } from './parent-link.ts';

/** What the janitor is told. */
export interface JanitorSettings {
  readonly adminUrl: string;
  readonly database: string;
  /** Drops the replication slots only: one that nobody reads would make the server keep its WAL for ever. */
  readonly keep: boolean;
}

/** Does nothing as long as the demo runs, and tidies up when it has ended, even if it was killed. */
const parent = linkToParent<JanitorSettings>(() => void work(() => tidyUp(parent.settings)));
parent.ready();

async function tidyUp({ adminUrl, database, keep }: JanitorSettings): Promise<void> {
  const admin = await openClient({ connectionString: adminUrl, applicationName: 'tailrace demo janitor' });
  try {
    const found = await admin.query('select from pg_database where datname = $1', [database]);
    if (found.rowCount === 0) return;
    await lockOut(admin, database);
    await dropSlots(admin, database);
    if (keep) await admin.query(`alter database ${database} allow_connections true`);
    else await admin.query(`drop database ${database} with (force)`);
  } finally {
    await closeClient(admin);
  }
}

/** A process that is ending a little later could otherwise connect again, and take up its slot. */
async function lockOut(admin: pg.Client, database: string): Promise<void> {
  await admin.query(`alter database ${database} allow_connections false`);
  const own = 'from pg_stat_activity where datname = $1 and usename = current_user';
  await admin.query(`select pg_terminate_backend(pid, 10000) ${own}`, [database]);
}

async function dropSlots(admin: pg.Client, database: string): Promise<void> {
  await admin.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1', [
    database,
  ]);
}
