import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { CliProcess, run } from './kit.ts';
import { relayAll } from './relayed.ts';

const env = ({ connectionString }: TestDatabase) => ({ DATABASE_URL: connectionString });

describe('publish', () => {
  it('writes one message, and prints its id', async () => {
    await using database = await createTestDatabase();
    const args = [
      'publish',
      'orders',
      '--key',
      'A-1',
      '--type',
      'OrderPlaced',
      '--payload',
      '{"n": 12345678901234567890}',
    ];
    const { exitCode, out, err } = await run([...args, '--header', 'a=b=c', '--header', 'd='], env(database));
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' });
    const { rows } = await database.pool.query(
      'select message_id, topic, key, type, kind, headers, payload::text as payload from tailrace.outbox',
    );
    expect(rows).toEqual([
      {
        message_id: out.trim(),
        topic: 'orders',
        key: 'A-1',
        type: 'OrderPlaced',
        kind: 'event',
        headers: { a: 'b=c', d: '' },
        payload: '{"n": 12345678901234567890}', // not a digit lost
      },
    ]);
  });

  it('writes a message for each line of standard input, in their order', async () => {
    await using database = await createTestDatabase();
    const lines = Array.from({ length: 1_203 }, (_, n) => `{"n":${n}}`);
    const { exitCode, out } = await run(['publish', 'orders', '--json'], env(database), ['', ...lines, '  ']);
    expect(exitCode).toBe(0);
    const report = JSON.parse(out) as { topic: string; ids: string[] };
    const { rows } = await database.pool.query<{ message_id: string; payload: string }>(
      'select message_id, payload::text as payload from tailrace.outbox order by position',
    );
    expect(rows.map(({ payload }) => payload)).toEqual(lines);
    expect(report).toEqual({ topic: 'orders', ids: rows.map(({ message_id }) => message_id) });
  });

  it('reads a pipe that was full and closed before the database answered, and an empty one', async () => {
    await using database = await createTestDatabase();
    await using cli = new CliProcess(['publish', 'orders', '--json'], env(database), '{"n":1}\n{"n":2}\n{"n":3}');
    const { exitCode, out } = await cli.outcome();
    expect({ exitCode, count: (JSON.parse(out) as { ids: string[] }).ids.length }).toEqual({ exitCode: 0, count: 3 });
    const { rows } = await database.pool.query(`select payload ->> 'n' as n from tailrace.outbox order by position`);
    expect(rows).toEqual([{ n: '1' }, { n: '2' }, { n: '3' }]);
    await using without = new CliProcess(['publish', 'orders'], env(database), '\n');
    expect(await without.outcome()).toMatchObject({
      exitCode: 2,
      err: expect.stringMatching(/input was empty/) as string,
    });
  });

  it('writes nothing if one line is broken', async () => {
    await using database = await createTestDatabase();
    const lines = [...Array.from({ length: 1_000 }, () => '{}'), 'oops'];
    const { exitCode, out, err } = await run(['publish', 'orders'], env(database), lines);
    expect({ exitCode, out }).toEqual({ exitCode: 2, out: '' });
    expect(err).toMatch(/^tailrace: Line 1001 of standard input is not JSON/);
    expect((await database.pool.query('select from tailrace.outbox')).rowCount).toBe(0);
  });

  it.each([
    ['a topic with a space', ['my orders', '--payload', '{}'], /topic of Message is "my orders"/],
    ['a payload that is no JSON', ['orders', '--payload', '{'], /--payload is not JSON/],
    ['an empty type', ['orders', '--payload', '{}', '--type', ''], /type of a message is empty/],
    ['a header without a value', ['orders', '--payload', '{}', '--header', 'x'], /--header.*equals sign/],
    ['nothing', ['orders'], /Nothing to publish/],
  ])('refuses %s', async (_what, args, message) => {
    await using database = await createTestDatabase();
    const { exitCode, out, err } = await run(['publish', ...args], env(database));
    expect({ exitCode, out }).toEqual({ exitCode: 2, out: '' });
    expect(err).toMatch(message);
  });

  it('says what to do without tables', async () => {
    await using database = await createTestDatabase({ migrated: false });
    for (const args of [
      ['publish', 'orders', '--payload', '{}'],
      ['tail', 'orders'],
    ]) {
      const { exitCode, out, err } = await run(args, env(database));
      expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
      expect(err).toMatch(/schema tailrace.*tailrace migrate/);
    }
  });
});

describe('tail', () => {
  async function filled(): Promise<TestDatabase> {
    const database = await createTestDatabase();
    await database.pool.query(
      `select tailrace.publish('orders', 'k' || n % 3, case when n % 2 = 0 then 'Even' else 'Odd' end,
         ('{"n": ' || n || E',\\n"m": 1}')::json, '{"h": "x"}') from generate_series(0, 99) n`,
    );
    await relayAll(database, 4);
    return database;
  }
  const numbers = (out: string): number[] =>
    out
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { payload: { n: number } }).payload.n)
      .sort((one, other) => one - other);
  const all = Array.from({ length: 100 }, (_, n) => n);

  it('prints what there is and ends, with filters', async () => {
    await using database = await filled();
    const tail = async (...args: string[]): Promise<string> => {
      const { exitCode, out, err } = await run(['tail', 'orders', '--exit', ...args], env(database));
      expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' });
      return out;
    };
    const json = ['--format', 'json', '--from', 'earliest'];
    expect(numbers(await tail(...json))).toEqual(all);
    expect(numbers(await tail(...json, '--type', 'Odd', '--key', 'k1'))).toEqual(
      all.filter((n) => n % 2 === 1 && n % 3 === 1),
    );
    expect(numbers(await tail(...json, '--header', 'h=x'))).toEqual(all);
    expect(await tail(...json, '--header', 'h=y')).toBe('');
    expect(await tail(...json, '--header', 'h=x', '--header', 'absent=')).toBe('');
    expect(numbers(await tail('--json', '--from', '2020-01-01T00:00:00Z'))).toEqual(all);
    expect(await tail('--from', 'latest')).toBe('');
    expect(numbers(await tail(...json, '--count', '7'))).toHaveLength(7);

    const { rows } = await database.pool.query<{ partition: number; count: number }>(
      `select p.partition, coalesce(sum(e.count), 0)::int as count from tailrace.log_partition p
        left join tailrace.log_entry e on e.partition = p.id group by 1 order by 2 desc`,
    );
    const { partition, count } = rows[0]!;
    const text = await tail('--partition', String(partition), '--from', '2', '--format', '%p %o%%\\t%t %h');
    expect(text).toBe(
      all
        .slice(2, count)
        .map((offset) => `${partition} ${offset}%\torders {"h":"x"}\n`)
        .join(''),
    );
  });

  it('refuses an offset that is not there, also where it would end at once', async () => {
    await using database = await filled();
    const place = ['--partition', '0', '--from', '999'];
    for (const more of [[], ['--exit']]) {
      const { exitCode, err } = await run(['tail', 'orders', ...place, ...more], env(database));
      expect({ exitCode, err }).toEqual({
        exitCode: 1,
        err: expect.stringMatching(/^tailrace: There is no offset 999 in orders partition 0: .*\n$/) as string,
      });
    }
  });

  it('waits for what comes, from here on, and ends in good order at Ctrl-C', async () => {
    await using database = await filled();
    const first = run(
      ['tail', 'orders', '--from', 'earliest', '--type', 'Late', '--count', '1', '--format', '%y %k'],
      env(database),
    );
    await using cli = new CliProcess(['tail', 'orders', '--format', '%y'], env(database));
    await expect.poll(() => listening(database), { timeout: 60_000 }).toBe(2);
    await database.pool.query(`select tailrace.publish('orders', 'z', 'Late', '{}')`);
    await relayAll(database, 4);
    expect(await first).toEqual({ exitCode: 0, out: 'Late z\n', err: '' });
    await cli.prints(/Late/);
    cli.child.kill('SIGINT');
    expect(await cli.outcome()).toMatchObject({ exitCode: 0, out: 'Late\n', err: '' });
  });

  it('ends when its reader has seen enough', async () => {
    await using database = await filled();
    const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
    const child = spawn(process.execPath, [main, 'tail', 'orders', '--from', 'earliest'], {
      env: { ...process.env, ...env(database) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    child.stdout.destroy();
    const exited = once(child, 'exit');
    await database.pool.query(`select tailrace.publish('orders', 'z', 'Late', '{}')`);
    await relayAll(database, 4);
    expect(await exited).toEqual([0, null]);
  });

  it.each([
    ['an unknown topic', 1, ['nothing'], /no topic "nothing"/],
    ['an unknown partition', 2, ['orders', '--partition', '4'], /has 4, counted from 0/],
    ['an unknown token', 2, ['orders', '--format', '%x'], /no token %x/],
    ['a header without a value', 2, ['orders', '--header', 'h'], /--header is "h"\. Expected a name, = and a value/],
    ['an unknown place', 2, ['orders', '--from', 'now'], /--from is "now"/],
    ['a time to come', 2, ['orders', '--from', '2999-01-01T00:00:00Z'], /--from is 2999-.*, which is in the future/],
    ['an offset that is not there', 1, ['orders', '--partition', '0', '--from', '1000'], /no offset 1000/],
  ])('refuses %s', async (_what, exitCode, args, message) => {
    await using database = await filled();
    const outcome = await run(['tail', ...args], env(database));
    expect(outcome).toMatchObject({ exitCode, out: '' });
    expect(outcome.err).toMatch(message);
  });
});

async function listening({ pool }: TestDatabase): Promise<number> {
  const { rows } = await pool.query<{ count: number }>(
    `select count(*)::int as count from pg_stat_activity
      where datname = current_database() and application_name = 'tailrace listen'`,
  );
  return rows[0]!.count;
}
