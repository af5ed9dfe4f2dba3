import { Command } from 'commander';
import { type Migration, pendingMigrations, readMigrations } from '../postgres/migrations.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withPipelineOptions } from './database-options.ts';
import { addressOf, databaseUrl, isDatabaseNamed } from './database-url.ts';
import { usageFailure } from './failure.ts';
import { exampleHelp } from './help.ts';
import { assertRolePrefix, type InitNames, rightsSql, roleName, rolesSql } from './init/init-script.ts';
import { ROLES } from './init/rights.ts';
import { migrateDatabase, migrationScript } from './migrate-command.ts';
import type { Terminal } from './terminal.ts';

interface InitOptions extends DatabaseOptions {
  readonly rolePrefix?: string;
  readonly sql?: true;
}

/** Adds `tailrace init`. */
export function addInitCommand(program: Command, terminal: Terminal): void {
  withPipelineOptions(program.command('init'), 'the schema to create and fill')
    .summary('create tables, publication and roles with the rights they need')
    .description(
      'Creates the tables and the publication, or brings them up to date, and a role without login for each kind of process, with exactly the rights that it needs; takes all rights on the schema from PUBLIC. May be repeated, and is to be after each migration. Needs a superuser, or a role with CREATEROLE that owns the database.',
    )
    .option('--role-prefix <prefix>', 'what the names of the roles begin with (default: the name of the schema)')
    .option('--sql', 'change nothing; print what a database administrator has to run')
    .option('--json', 'print what was done as one JSON document')
    .addHelpText(
      'after',
      exampleHelp(
        'tailrace init --database-url postgresql://postgres@localhost:5432/shop',
        'tailrace init --sql > init.sql && psql -v ON_ERROR_STOP=1 -f init.sql',
      ),
    )
    .action((options: InitOptions) => runInit(options, terminal));
}

async function runInit(options: InitOptions, terminal: Terminal): Promise<void> {
  const { schema } = options;
  quoteSchema(schema);
  const names: InitNames = { schema, rolePrefix: options.rolePrefix ?? schema };
  assertRolePrefix(names.rolePrefix);
  if (options.sql === true) terminal.out(await initScript(names, options, terminal));
  else await initialize(names, options, terminal);
}

async function initScript(names: InitNames, options: InitOptions, terminal: Terminal): Promise<string> {
  if (options.json === true) throw usageFailure('--sql and --json do not go together: the script is SQL.');
  const pending = await pendingOf(names, options, terminal);
  const parts = [`-- For psql -v ON_ERROR_STOP=1, connected to the database of the outbox.\n`, rolesSql(names)];
  return [...parts, ...(pending.length > 0 ? [migrationScript(pending)] : []), rightsSql(names)].join('\n');
}

/** What the database lacks; all there is if none is named. */
async function pendingOf({ schema }: InitNames, options: InitOptions, terminal: Terminal): Promise<Migration[]> {
  if (!isDatabaseNamed(options.databaseUrl, terminal)) return await readMigrations(schema);
  const url = databaseUrl(options.databaseUrl, terminal);
  return await withClient({ url, schema, command: 'init' }, (client) => pendingMigrations(client, schema));
}

interface InitReport {
  readonly schema: string;
  readonly publication: string;
  readonly applied: readonly { readonly version: number; readonly name: string }[];
  readonly roles: readonly { readonly name: string; readonly purpose: string; readonly created: boolean }[];
}

async function initialize(names: InitNames, options: InitOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  const { schema } = names;
  const task = { url, schema, command: 'init' };
  const existing = await withClient(task, async (client) => {
    await pendingMigrations(client, schema); // a schema of a later version is refused before anything is done
    const wanted = ROLES.map(({ kind }) => roleName(names, kind));
    const found = await client.query<{ rolname: string }>('select rolname from pg_roles where rolname = any($1)', [
      wanted,
    ]);
    await client.query(rolesSql(names));
    return found.rows.map(({ rolname }) => rolname);
  });
  const applied = await migrateDatabase(url, schema);
  await withClient(task, (client) => client.query(rightsSql(names)));
  const report: InitReport = {
    schema,
    publication: schema,
    applied: applied.map(({ version, name }) => ({ version, name })),
    roles: ROLES.map(({ kind, purpose }) => {
      const name = roleName(names, kind);
      return { name, purpose, created: !existing.includes(name) };
    }),
  };
  terminal.out(options.json === true ? `${JSON.stringify(report)}\n` : textReport(url, names, report));
}

function textReport(url: string, names: InitNames, { schema, applied, roles }: InitReport): string {
  const { database, server } = addressOf(url);
  const role = (kind: Parameters<typeof roleName>[1]): string => roleName(names, kind);
  const migrations = applied.map(({ version, name }) => `${String(version).padStart(4, '0')} ${name}`);
  const lines = roles.map(
    ({ name, purpose, created }) => `  ${name}  ${created ? 'created' : 'was there'}; ${purpose}\n`,
  );
  return `The schema ${schema} of the database ${database} on ${server} is ready.
Migrations: ${migrations.length === 0 ? 'none were pending' : migrations.join(', ')}.
Publication: ${schema}.
Roles, without login and with the rights that they need:
${lines.join('')}
Next, make logins that are members of them, such as:
  create role shop login password '…' in role ${role('app')};
  create role shop_relay login replication password '…' in role ${role('relay_wal')};
  create role shop_billing login password '…' in role ${role('consumer')}, ${role('app')};
  create role shop_deploy login password '…' in role ${role('migrator')};
  alter role shop_deploy set role = ${role('migrator')};
REPLICATION is not inherited, so the login of a relay in WAL mode has to have it; one in polling mode needs ${role('relay_poll')} alone.
The replication slot is not made here: the first relay in WAL mode makes it, for the server keeps WAL from then on.
Run tailrace init again after each migration: new tables need rights too.
`;
}
