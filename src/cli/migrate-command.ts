import { Command } from 'commander';
import pg from 'pg';
import { migrate, type Migration, pendingMigrations, readMigrations } from '../postgres/migrations.ts';
import { listenToPool } from '../postgres/pool-listener.ts';
import { clientUrl } from '../postgres/tls.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withPipelineOptions } from './database-options.ts';
import { addressOf, databaseUrl, isDatabaseNamed } from './database-url.ts';
import { failureOf } from './explain-error.ts';
import { exampleHelp } from './help.ts';
import type { Terminal } from './terminal.ts';

interface MigrateOptions extends DatabaseOptions {
  readonly sql?: true;
}

/** Adds `tailrace migrate`. */
export function addMigrateCommand(program: Command, terminal: Terminal): void {
  withPipelineOptions(program.command('migrate'), 'the schema to create and fill')
    .summary('create the tables of tailrace, or bring them up to date')
    .description(
      'Creates the tables, functions and publication of tailrace in a schema of their own, or brings them up to date.',
    )
    .option('--sql', 'change nothing; print the SQL of what is to be applied, or of everything if no database is named')
    .option('--json', 'print what was applied, or is to be, as one JSON document')
    .addHelpText(
      'after',
      exampleHelp(
        'tailrace migrate --database-url postgresql://postgres@localhost:5432/shop',
        'tailrace migrate --sql > tailrace.sql',
      ),
    )
    .action((options: MigrateOptions) => runMigrate(options, terminal));
}

async function runMigrate(options: MigrateOptions, terminal: Terminal): Promise<void> {
  if (options.sql === true) {
    terminal.out(pendingReport(options, await readPending(options, terminal)));
    return;
  }
  const url = databaseUrl(options.databaseUrl, terminal);
  const applied = await migrateDatabase(url, options.schema);
  terminal.out(options.json === true ? jsonReport(options.schema, applied) : textReport(url, options.schema, applied));
}

/** What the database lacks; all there is if none is named. */
async function readPending({ databaseUrl: option, schema }: MigrateOptions, terminal: Terminal): Promise<Migration[]> {
  if (!isDatabaseNamed(option, terminal)) return await readMigrations(schema);
  const url = databaseUrl(option, terminal);
  return await withClient({ url, schema, command: 'migrate' }, (client) => pendingMigrations(client, schema));
}

function pendingReport({ schema, json }: MigrateOptions, pending: readonly Migration[]): string {
  if (json === true) return `${JSON.stringify({ schema, pending })}\n`;
  return pending.length === 0 ? `-- Nothing to do: the schema ${schema} is up to date.\n` : migrationScript(pending);
}

/** Migrations as a script for `psql -v ON_ERROR_STOP=1`, each in a transaction. */
export function migrationScript(migrations: readonly Migration[]): string {
  return migrations.map(({ sql }) => `begin;\n\n${sql.trim()}\n\ncommit;\n`).join('\n');
}

const CONNECT_TIMEOUT_MS = 15_000;

/**
 * Applies what is pending.
 *
 * @throws CommandFailure what went wrong, in words for the user.
 */
export async function migrateDatabase(connectionString: string, schema: string): Promise<Migration[]> {
  const pool = new pg.Pool({
    connectionString: clientUrl(connectionString),
    max: 1,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    application_name: 'tailrace migrate',
  });
  listenToPool(pool); // the statement that is under way rejects as well
  try {
    return await migrate(pool, { schema });
  } catch (error) {
    throw failureOf(error, connectionString);
  } finally {
    await pool.end();
  }
}

function jsonReport(schema: string, applied: readonly Migration[]): string {
  return `${JSON.stringify({ schema, applied: applied.map(({ version, name }) => ({ version, name })) })}\n`;
}

function textReport(url: string, schema: string, applied: readonly Migration[]): string {
  const { database, server } = addressOf(url);
  const place = `the schema ${schema} of the database ${database} on ${server}`;
  if (applied.length === 0) return `Nothing to do: ${place} is up to date.\n`;
  const lines = applied.map(({ version, name }) => `  ${String(version).padStart(4, '0')} ${name}\n`);
  return `Applied to ${place}:\n${lines.join('')}`;
}
