import { expect, it } from 'vitest';
import { startLocalServer } from '../../../src/postgres/local-server.ts';
import { migrate } from '../../../src/postgres/migrations.ts';
import { run } from '../kit.ts';
import { openPool } from '../../servers/pool.ts';

async function finding(url: string, check: string): Promise<unknown> {
  const { exitCode, out } = await run(['doctor', '--json'], { DATABASE_URL: url });
  const { findings } = JSON.parse(out) as { findings: { check: string; level: string; what: string }[] };
  const { level, what } = findings.find((each) => each.check === check) ?? { level: 'none', what: '' };
  return { exitCode, level, what };
}

it('a server that writes no logical WAL: warns, for relays can poll', async () => {
  await using server = await startLocalServer({ settings: { wal_level: 'replica' } });
  const { connectionString } = server;
  const pool = openPool({ connectionString, max: 1 });
  await migrate(pool);
  await pool.end();
  expect(await finding(connectionString, 'wal_level')).toEqual({
    exitCode: 0,
    level: 'warn',
    what: 'It is replica, expected logical.',
  });
  expect(await finding(connectionString, 'slot')).toMatchObject({ level: 'ok' });
});

it('a slot that holds more and more WAL: warns at half of the budget, fails near its end, and when it is lost', async () => {
  await using server = await startLocalServer({ settings: { max_slot_wal_keep_size: '64MB', max_wal_size: '32MB' } });
  const { connectionString } = server;
  const pool = openPool({ connectionString, max: 1 });
  await migrate(pool);
  await pool.query(`select pg_create_logical_replication_slot('tailrace_' || oid, 'pgoutput')
    from pg_database where datname = current_database()`);
  const write = async (megabytes: number): Promise<void> => {
    for (let n = 0; n < megabytes; n++)
      await pool.query(`select pg_logical_emit_message(false, 'x', repeat('x', 1000000))`);
    // A commit has all before it written, which is what pg_current_wal_lsn() tells.
    await pool.query(`set synchronous_commit = on; select pg_logical_emit_message(true, 'x', '')`);
  };
  expect(await finding(connectionString, 'slot')).toMatchObject({
    exitCode: 0,
    level: 'warn',
    what: expect.stringContaining('nobody reads it'),
  });
  await write(36);
  await pool.query('select pg_stat_force_next_flush()'); // the server tells its statistics late
  expect(await finding(connectionString, 'slot')).toMatchObject({
    exitCode: 0,
    level: 'warn',
    what: expect.stringMatching(
      /5\d % of max_slot_wal_keep_size\. Held by the slot itself: nobody reads it\. Full in about \d+ (s|min|h|d) at the (average )?pace /,
    ),
  });
  await write(20);
  expect(await finding(connectionString, 'slot')).toMatchObject({
    exitCode: 1,
    level: 'fail',
    what: expect.stringMatching(/8\d % of max_slot.* Full in about /),
  });
  await write(40);
  await pool.query('select pg_switch_wal()');
  await pool.query('checkpoint');
  await pool.end();
  expect(await finding(connectionString, 'slot')).toMatchObject({
    exitCode: 1,
    level: 'fail',
    what: expect.stringContaining('is lost'),
  });
});
