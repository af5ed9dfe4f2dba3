import type pg from 'pg';
import { expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { CliProcess } from './kit.ts';

const MODES = ['wal', 'polling'] as const;

function startRelay({ connectionString, name }: TestDatabase, ...args: string[]): CliProcess {
  return new CliProcess(['relay', '--json', '--slot', name, ...args], { DATABASE_URL: connectionString });
}

async function publish(pool: pg.Pool, count: number): Promise<void> {
  await pool.query(
    `select tailrace.publish('orders', 'key-' || i % 7, 'OrderPlaced', '{}') from generate_series(1, $1::int) i`,
    [count],
  );
}

async function appended(pool: pg.Pool): Promise<number> {
  const sql = 'select coalesce(sum(count), 0)::int as count from tailrace.log_entry';
  const result = await pool.query<{ count: number }>(sql);
  return result.rows[0]!.count;
}

it.each(MODES)('relays in %s mode, and ends in good order when it is told to', async (mode) => {
  await using database = await createTestDatabase();
  await using relay = startRelay(database, '--mode', mode);
  await relay.says(new RegExp(`"state":"leading","mode":"${mode}"[^\\n]*"status"`));
  await publish(database.pool, 1_000);
  await expect.poll(() => appended(database.pool), { timeout: 60_000 }).toBe(1_000);

  relay.child.kill('SIGTERM');
  const { exitCode, out, err } = await relay.outcome();
  expect(exitCode).toBe(0);
  expect(err).toMatch(/"signal":"SIGTERM","message":"stopping; a second signal ends the process at once"/);
  expect(out).toMatch(/^[^\n]+\n$/);
  const report = JSON.parse(out) as { modes: string[] };
  expect(report).toMatchObject({ state: 'stopped', appended: 1_000 });
  expect(report.modes.at(-1)).toBe(mode);
  expect(await appended(database.pool)).toBe(1_000);
  const lease = await database.pool.query(
    'select expires_at <= clock_timestamp() and backend_pid = 0 as free from tailrace.relay_lease',
  );
  expect(lease.rows).toEqual([{ free: true }]);
});

it('goes on after a relay that was killed, without a loss or a repetition, in the other mode as well', async () => {
  await using database = await createTestDatabase();
  let published = 0;
  const publishMore = async (count: number): Promise<void> => {
    await publish(database.pool, count);
    published += count;
  };
  for (const mode of [...MODES, ...MODES]) {
    await using relay = startRelay(database, '--mode', mode, '--lease-ms', '60000');
    await relay.says(new RegExp(`"state":"leading","mode":"${mode}"`));
    await publishMore(100);
    await expect.poll(() => appended(database.pool), { timeout: 60_000 }).toBe(published);
    relay.child.kill('SIGKILL');
    await publishMore(10);
    await relay.outcome();
  }
  await using _relay = startRelay(database);
  await expect.poll(() => appended(database.pool), { timeout: 60_000 }).toBe(published);
  const ids = await database.pool.query(
    'select count(distinct id)::int as count from tailrace.log_entry, unnest(ids) id',
  );
  expect(ids.rows).toEqual([{ count: published }]);
});

it('a second relay stands by, and takes over from one that stops', async () => {
  await using database = await createTestDatabase();
  await using first = startRelay(database);
  await first.says(/"state":"leading"/);
  await using second = startRelay(database);
  await second.says(/"state":"standby"/);
  first.child.kill('SIGINT');
  await second.says(/"state":"leading"/);
  expect((await first.outcome()).exitCode).toBe(0);
});

it('a schema without tables: one document, exit code 1, and what to do', async () => {
  await using database = await createTestDatabase({ migrated: false });
  await using relay = startRelay(database, '--schema', 'nowhere');
  const { exitCode, out } = await relay.outcome();
  expect(exitCode).toBe(1);
  expect(JSON.parse(out)).toMatchObject({
    state: 'halted',
    error: { code: 'NOT_MIGRATED', message: expect.stringMatching(/nowhere.*tailrace migrate/) },
  });
});
