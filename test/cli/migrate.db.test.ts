import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { currentVersion, migrate, readMigrations } from '../../src/postgres/migrations.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { CliProcess, type Outcome, run } from './kit.ts';

const ALL = [
  { version: 1, name: 'outbox' },
  { version: 2, name: 'log' },
  { version: 3, name: 'consumer' },
];

it('creates the tables, says so in one document, and has nothing to do the next time', async () => {
  await using database = await createTestDatabase({ migrated: false });
  const args = ['migrate', '--json', '--database-url', database.connectionString];
  const first = await run(args);
  expect(first).toEqual({ exitCode: 0, err: '', out: expect.stringMatching(/^\{.*\}\n$/) });
  expect(JSON.parse(first.out)).toEqual({ schema: 'tailrace', applied: expect.arrayContaining(ALL) });
  expect(JSON.parse((await run(args)).out)).toEqual({ schema: 'tailrace', applied: [] });
  await database.pool.query(`select tailrace.publish('orders', null, 'OrderPlaced', '{}')`);
});

it('fills a schema of another name', async () => {
  await using database = await createTestDatabase({ migrated: false });
  const { exitCode, out } = await run([
    'migrate',
    '--schema',
    'shop_mail',
    '--database-url',
    database.connectionString,
  ]);
  expect(exitCode).toBe(0);
  expect(out).toMatch(
    /^Applied to the schema shop_mail of the database test_\w+ on .*:\n {2}0001 outbox\n {2}0002 log\n/,
  );
  await database.pool.query('select from shop_mail.outbox');
  const again = await run(['migrate', '--schema', 'shop_mail', '--database-url', database.connectionString]);
  expect(again.out).toMatch(/^Nothing to do: /);
});

describe('migrate --sql', () => {
  it('prints what a database needs, which can be run as it stands', async () => {
    await using database = await createTestDatabase({ migrated: false });
    const everything = await run(['migrate', '--sql', '--schema', 'shop_mail']);
    expect(everything).toMatchObject({ exitCode: 0, err: '' });
    const named = ['--database-url', database.connectionString];
    expect((await run(['migrate', '--sql', '--schema', 'shop_mail', ...named])).out).toBe(everything.out);
    expect((await database.pool.query(`select to_regnamespace('shop_mail') as schema`)).rows).toEqual([
      { schema: null },
    ]);

    await database.pool.query(everything.out);
    await database.pool.query(`select shop_mail.publish('orders', null, 'OrderPlaced', '{}')`);
    expect((await run(['migrate', '--sql', '--schema', 'shop_mail', ...named])).out).toMatch(/^-- Nothing to do/);
    const { out } = await run(['migrate', '--json', '--schema', 'shop_mail', ...named]);
    expect(JSON.parse(out)).toEqual({ schema: 'shop_mail', applied: [] });
  });

  it('prints only what is pending', async () => {
    await using database = await createTestDatabase({ migrated: false });
    const [first, ...others] = await readMigrations();
    await database.pool.query(`begin; ${first!.sql}; commit`);
    const args = ['migrate', '--sql', '--database-url', database.connectionString];
    const { pending } = JSON.parse((await run([...args, '--json'])).out) as { pending: object[] };
    expect(pending).toEqual(others);
    await database.pool.query((await run(args)).out);
    expect(await currentVersion(database.pool, 'tailrace')).toBe(others.at(-1)?.version);
  });
});

it('two processes at once apply each migration once', async () => {
  await using database = await createTestDatabase({ migrated: false });
  const args = ['migrate', '--json', '--database-url', database.connectionString];
  await using one = new CliProcess(args);
  await using other = new CliProcess(args);
  const outcomes = await Promise.all([one.outcome(), other.outcome()]);
  const applied = outcomes.flatMap(({ exitCode, out }) => {
    expect(exitCode).toBe(0);
    return (JSON.parse(out) as { applied: object[] }).applied;
  });
  expect(applied).toEqual((await readMigrations()).map(({ version, name }) => ({ version, name })));
});

const migrations = await readMigrations();

it.each(migrations.map(({ version }) => version))(
  'brings a schema up to date that is at migration %i',
  async (version) => {
    await using database = await createTestDatabase({ migrated: false });
    for (const { sql } of migrations.slice(0, version)) await database.pool.query(`begin; ${sql}; commit`);
    await database.pool.query(
      `select tailrace.publish('orders', 'k' || n, 'OrderPlaced', '{}') from generate_series(1, 10) n`,
    );
    const { exitCode, out } = await run(['migrate', '--json', '--database-url', database.connectionString]);
    expect(exitCode).toBe(0);
    const later = migrations.slice(version).map(({ version, name }) => ({ version, name }));
    expect(JSON.parse(out)).toEqual({ schema: 'tailrace', applied: later });
    await using fresh = await createTestDatabase();
    expect(await shapeOf(database)).toEqual(await shapeOf(fresh));
    expect((await database.pool.query('select from tailrace.outbox')).rowCount).toBe(10);
  },
);

/** What the schema is made of. */
async function shapeOf({ pool }: TestDatabase): Promise<unknown> {
  const { rows } = await pool.query(
    `select table_name as of, column_name as name, data_type as type from information_schema.columns
       where table_schema = 'tailrace'
     union all select proname, 'function', pg_get_functiondef(oid) from pg_proc where pronamespace = 'tailrace'::regnamespace
     union all select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
       where connamespace = 'tailrace'::regnamespace
     union all select tablename, indexname, indexdef from pg_indexes where schemaname = 'tailrace'
     order by 1, 2, 3`,
  );
  expect(rows.length).toBeGreaterThan(50);
  return rows;
}

it.each([[], ['--sql']])('refuses a schema of a later version, and changes nothing %j', async (...more) => {
  await using database = await createTestDatabase();
  await database.pool.query(`insert into tailrace.migration (version, name) values (999, 'from_the_future')`);
  const { exitCode, out, err } = await run(['migrate', ...more, '--database-url', database.connectionString]);
  expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
  expect(err).toMatch(
    /^tailrace: The schema tailrace is at migration 999; this version of tailrace knows them up to \d+\./,
  );
  await expect(migrate(database.pool)).rejects.toMatchObject({ code: 'SCHEMA_TOO_NEW', retryable: false });
});

async function runProcess(args: readonly string[]): Promise<Outcome> {
  await using cli = new CliProcess(args);
  return await cli.outcome();
}

it.each(['migrate', 'relay'])(
  '%s: a wrong password, a wrong database and a role without rights are told apart',
  async (command) => {
    await using database = await createTestDatabase({ migrated: false });
    const role = `role_${randomBytes(6).toString('hex')}`;
    await database.pool.query(`create role ${role} login password 's3cret'`);
    const url = (user: string, password: string, name: string): string => {
      const changed = new URL(database.connectionString);
      Object.assign(changed, { username: user, password, pathname: `/${name}` });
      return changed.href;
    };
    try {
      const guessed = await runProcess([command, '--database-url', url(role, 'gu3ss', database.name)]);
      expect(guessed.err).toMatch(
        /^tailrace: Postgres at .* does not let the user role_\w+ in: .*password.*pg_hba\.conf\.$/m,
      );
      const elsewhere = await runProcess([command, '--database-url', url(role, 's3cret', 'nowhere')]);
      expect(elsewhere.err).toMatch(/^tailrace: There is no database nowhere on .*\. Create it/m);
      const powerless = await runProcess([command, '--database-url', url(role, 's3cret', database.name)]);
      expect(powerless.err).toMatch(
        command === 'migrate' ? /lacks a right in the database test_\w+/ : /tailrace migrate/,
      );
      for (const { exitCode, out, err } of [guessed, elsewhere, powerless]) {
        expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
        expect(err).not.toMatch(/s3cret|gu3ss|\n\s+at /);
      }
    } finally {
      await database.pool.query(`drop role ${role}`);
    }
  },
);
