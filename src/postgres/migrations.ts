import { readFile, readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { DEFAULT_SCHEMA, quoteSchema } from './schema-name.ts';

/** One numbered file of `migrations/`, with the schema's name put in. */
export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
}

export interface MigrateOptions {
  /** The schema to create and fill. @defaultValue 'tailrace' */
  readonly schema?: string;
}

const FILE_NAME = /^(\d{4})_([a-z0-9_]+)\.sql$/;

/** The migrations that this version of tailrace knows, in order. */
export async function readMigrations(schema: string = DEFAULT_SCHEMA): Promise<Migration[]> {
  const quoted = quoteSchema(schema);
  const folder = fileURLToPath(new URL('../../migrations/', import.meta.url));
  const files = (await readdir(folder)).filter((file) => FILE_NAME.test(file)).sort();
  return Promise.all(
    files.map(async (file) => {
      const [, version = '', name = ''] = FILE_NAME.exec(file) ?? [];
      const text = await readFile(`${folder}${file}`, 'utf8');
      return { version: Number(version), name, sql: text.replace(/\btailrace\b/g, quoted) };
    }),
  );
}

/**
 * Brings the schema up to date: each migration in a transaction of its own, under an advisory lock, so that several
 * processes may call it at once. Returns the migrations it applied; none if the schema was up to date.
 *
 * @throws TailraceError `SCHEMA_TOO_NEW`, `INVALID_SCHEMA_NAME`.
 */
export async function migrate(pool: pg.Pool, options: MigrateOptions = {}): Promise<Migration[]> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  quoteSchema(schema); // a wrong name is known before anything is asked
  const client = await pool.connect();
  client.on('error', ignore); // a lost connection is what the statement reports; nobody listening would end the process
  const lock = [`tailrace.migrate ${schema}`];
  let failed = true;
  try {
    await client.query('select pg_advisory_lock(hashtext($1))', lock);
    const pending = await pendingMigrations(client, schema);
    for (const { sql } of pending) await client.query(`begin; ${sql}; commit`);
    await client.query('select pg_advisory_unlock(hashtext($1))', lock);
    failed = false;
    return pending;
  } finally {
    client.off('error', ignore);
    client.release(failed); // a failed client is closed, which ends its transaction and frees the lock
  }
}

function ignore(): void {
  // The statement under way fails.
}

/**
 * The migrations that a schema lacks, in order.
 *
 * @throws TailraceError `SCHEMA_TOO_NEW`, `INVALID_SCHEMA_NAME`.
 */
export async function pendingMigrations(client: Pick<pg.ClientBase, 'query'>, schema: string): Promise<Migration[]> {
  const migrations = await readMigrations(schema);
  const current = await currentVersion(client, schema);
  const known = migrations.at(-1)?.version ?? 0;
  if (current > known) throw tooNew(schema, current, known);
  return migrations.filter(({ version }) => version > current);
}

function tooNew(schema: string, found: number, known: number): TailraceError {
  return new TailraceError(
    'SCHEMA_TOO_NEW',
    `The schema ${schema} is at migration ${found}; this version of tailrace knows them up to ${known}. It was migrated by a later version: use that one.`,
    { details: { schema, found, known } },
  );
}

/** The last migration applied to a schema, 0 if there is none. */
export async function currentVersion(client: Pick<pg.ClientBase, 'query'>, schema: string): Promise<number> {
  const quoted = quoteSchema(schema);
  const exists = await client.query<{ found: boolean }>('select to_regclass($1) is not null as found', [
    `${quoted}.migration`,
  ]);
  if (exists.rows[0]?.found !== true) return 0;
  const result = await client.query<{ version: number }>(
    `select coalesce(max(version), 0)::int as version from ${quoted}.migration`,
  );
  return result.rows[0]?.version ?? 0;
}
