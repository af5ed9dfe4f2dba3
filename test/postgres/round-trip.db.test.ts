import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { RoundTrips, type Statement } from '../../src/postgres/round-trip.ts';
import { createTestDatabase } from '../servers/test-database.ts';

const add = (n: string): Statement => ({
  name: 'add',
  text: 'insert into number select $1::int, $2::text returning n::text, word',
  values: [n, `it's $1 \\ "ü"`],
});
const begin: Statement = { name: 'begin', text: 'begin', values: [] };
const commit: Statement = { name: 'commit', text: 'commit', values: [] };
const divide: Statement = { name: 'divide', text: 'select (1 / $1::int)::text', values: ['0'] };

describe('a round trip', () => {
  it.each([
    ['prepared', true, {}],
    ['as text, behind a pooler', false, {}],
    ['as text, in pipeline mode', true, { pipeline: true }],
  ])('runs all statements, or none behind one that fails: %s', async (_how, isSession, config) => {
    await using database = await createTestDatabase();
    const client = new pg.Client({ connectionString: database.connectionString, ...config });
    await client.connect();
    try {
      await client.query('create table number (n int primary key, word text)');
      const roundTrips = new RoundTrips();
      const run = (...statements: Statement[]): Promise<unknown> => roundTrips.run(client, isSession, statements);
      const word = `it's $1 \\ "ü"`;
      expect(await run(begin, add('1'), add('2'), commit)).toEqual([[], [['1', word]], [['2', word]], []]);
      await expect(run(begin, add('3'), divide, commit)).rejects.toMatchObject({ code: '22012' });
      await client.query('rollback');
      await expect(run({ name: 'wrong', text: 'select nothing from nowhere', values: [] })).rejects.toThrow('nowhere');
      expect(await run(begin, add('4'), commit)).toEqual([[], [['4', word]], []]);
      const long = 'ü🗝'.repeat(100_000);
      expect(await run({ name: 'echo', text: 'select $1::text', values: [long] })).toEqual([[[long]]]);
      expect((await client.query('select n from number order by n')).rows).toEqual([{ n: 1 }, { n: 2 }, { n: 4 }]);
    } finally {
      await client.end();
    }
  });

  it('fails with the connection', async () => {
    await using database = await createTestDatabase();
    const client = new pg.Client({ connectionString: database.connectionString });
    client.on('error', () => undefined);
    await client.connect();
    const sleep: Statement = { name: 'sleep', text: 'select pg_terminate_backend(pg_backend_pid())::text', values: [] };
    await expect(new RoundTrips().run(client, true, [begin, sleep])).rejects.toThrow(/terminat/i);
    await client.end();
  });
});

describe('two round trips at once', () => {
  it('answer each by itself, and go out in one piece', async () => {
    await using database = await createTestDatabase();
    const client = new pg.Client({ connectionString: database.connectionString });
    await client.connect();
    try {
      await client.query('create table number (n int primary key, word text)');
      const roundTrips = new RoundTrips();
      await roundTrips.run(client, true, [begin, add('1')]);
      let writes = 0;
      const { stream } = (client as unknown as { connection: pg.Connection }).connection;
      const write = stream.write.bind(stream) as (bytes: Uint8Array) => boolean;
      Object.assign(stream, {
        write: (bytes: Uint8Array) => {
          writes += 1;
          return write(bytes);
        },
      });
      const [committed, begun] = roundTrips.runBoth(client, [commit], [begin, add('2')]);
      expect(writes).toBe(1);
      expect(await committed).toEqual([[]]);
      expect(await begun).toMatchObject([[], [['2', expect.any(String)]]]);
      const [failed, behind] = roundTrips.runBoth(client, [divide, commit], [begin, add('3')]);
      await expect(failed).rejects.toMatchObject({ code: '22012' });
      await expect(behind).rejects.toMatchObject({ code: '25P02' });
      await client.query('rollback');
      expect(await roundTrips.run(client, true, [begin, add('4'), commit])).toHaveLength(3);
      expect((await client.query('select n from number order by n')).rows).toEqual([{ n: 1 }, { n: 4 }]);
    } finally {
      await client.end();
    }
  });
});
