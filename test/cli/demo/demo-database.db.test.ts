import { expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../../servers/test-database.ts';
import { CliProcess } from '../kit.ts';

const RUN_TIMEOUT_MS = 400_000;
const ITS_DATABASE = /database (tailrace_demo_[0-9a-f]+)/;

function startDemo({ connectionString }: TestDatabase, ...args: string[]): CliProcess {
  return new CliProcess(['demo', '--database-url', connectionString, '--seconds', '3', '--writers', '2', ...args]);
}

/** Whether a database of that name is there, and how many replication slots belong to it. */
async function remains({ pool }: TestDatabase, name: string): Promise<{ databases: number; slots: number }> {
  const result = await pool.query<{ databases: number; slots: number }>(
    `select (select count(*) from pg_database where datname = $1)::int as databases,
       (select count(*) from pg_replication_slots where database = $1)::int as slots`,
    [name],
  );
  return result.rows[0]!;
}

it(
  'runs in a server that it is given, and leaves neither database nor slot',
  async () => {
    await using database = await createTestDatabase();
    await using demo = startDemo(database, '--json');
    const { exitCode, out, err } = await demo.outcome();
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: expect.stringMatching(ITS_DATABASE) });
    expect(JSON.parse(out)).toMatchObject({ lost: 0, invented: 0, doubled: 0, reordered: 0, kills: 2 });
    expect(err).not.toContain(new URL(database.connectionString).password || 'no password');
    expect(await remains(database, ITS_DATABASE.exec(err)![1]!)).toEqual({ databases: 0, slots: 0 });
  },
  RUN_TIMEOUT_MS,
);

it(
  'leaves neither database nor slot in the server when it is killed',
  async () => {
    await using database = await createTestDatabase();
    await using demo = startDemo(database);
    const [, name = ''] = await demo.says(ITS_DATABASE);
    await demo.says(/writers place orders/);
    expect(await remains(database, name)).toEqual({ databases: 1, slots: 1 });
    demo.child.kill('SIGKILL');
    await demo.outcome();
    await expect.poll(() => remains(database, name), { timeout: 60_000 }).toEqual({ databases: 0, slots: 0 });
  },
  RUN_TIMEOUT_MS,
);

it(
  'keeps the database, but no slot, if it is told to',
  async () => {
    await using database = await createTestDatabase();
    await using demo = startDemo(database, '--keep');
    const [, name = ''] = await demo.says(ITS_DATABASE);
    await demo.says(/writers place orders/);
    demo.child.kill('SIGTERM');
    await demo.outcome();
    expect(await remains(database, name)).toEqual({ databases: 1, slots: 0 });
    await database.pool.query(`drop database ${name} with (force)`);
  },
  RUN_TIMEOUT_MS,
);

it(
  'fails in one line when a writer loses its connection, and leaves nothing',
  async () => {
    await using database = await createTestDatabase();
    await using demo = startDemo(database, '--json');
    const [, name = ''] = await demo.says(ITS_DATABASE);
    await demo.says(/writers place orders/);
    await database.pool.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name = 'demo writer 1'`,
      [name],
    );
    const { exitCode, out, err } = await demo.outcome();
    expect(exitCode).toBe(1);
    expect(JSON.parse(out)).toEqual({
      error: {
        code: 'FAILED',
        message: expect.stringMatching(/^The demo's writer 1 ended by itself \(exit code 1: .*\)\.$/),
      },
    });
    expect(err).toMatch(/\ntailrace: The demo's writer 1 ended by itself \(exit code 1: [^\n]*\)\.\n$/);
    expect(err).not.toMatch(/ at .*\.ts:/);
    expect(await remains(database, name)).toEqual({ databases: 0, slots: 0 });
  },
  RUN_TIMEOUT_MS,
);
