import { once } from 'node:events';
import { CamelCasePlugin, Kysely, PostgresDialect } from 'kysely';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type TransactionHandle, transactionExecutor } from '../../src/postgres/executor.ts';
import { type TestDatabase, createTestDatabase } from '../servers/test-database.ts';

let database: TestDatabase;
let db: Kysely<object>;

beforeAll(async () => {
  database = await createTestDatabase();
  db = new Kysely({ dialect: new PostgresDialect({ pool: database.pool }) });
});

afterAll(() => database[Symbol.asyncDispose]());

async function withClient<T>(action: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await database.pool.connect();
  try {
    return await action(client);
  } finally {
    client.release(true);
  }
}

function recognise(handle: unknown): () => unknown {
  return () => transactionExecutor(handle as TransactionHandle);
}

const backend = 'select pg_backend_pid() as pid, $1::text as given';

/** Resolves once the client knows that its transaction has failed: the error itself comes a little earlier. */
async function fail(client: pg.PoolClient): Promise<void> {
  const ready = once(client.connection, 'readyForQuery');
  await client.query('select 1/0').catch(() => undefined);
  await ready;
}

describe('a pg client', () => {
  it('runs statements on its own connection, in the transaction', async () => {
    await withClient(async (client) => {
      await client.query('begin');
      const own = await client.query(backend, ['a']);
      expect(await transactionExecutor(client).query(backend, ['a'])).toEqual(own.rows);
    });
  });

  it('is refused outside a transaction: before BEGIN, before its reply, after COMMIT', async () => {
    await withClient(async (client) => {
      const outside = expect.objectContaining({ code: 'NOT_IN_TRANSACTION' }) as unknown;
      expect(recognise(client)).toThrow(outside);
      const begin = client.query('begin');
      expect(recognise(client)).toThrow(/Await client\.query\('BEGIN'\)/);
      await begin;
      expect(recognise(client)).not.toThrow();
      await client.query('commit');
      expect(recognise(client)).toThrow(outside);
    });
  });

  it('raises an alarm where the transaction ended while the statement was waiting', async () => {
    await withClient(async (client) => {
      await client.query('begin');
      const rollback = client.query('rollback');
      const query = transactionExecutor(client).query('select 1', []);
      await expect(query).rejects.toMatchObject({ code: 'NOT_IN_TRANSACTION' });
      await expect(query).rejects.toThrow(/stored by itself/);
      await rollback;
    });
  });

  it('may have its COMMIT queued behind the statement', async () => {
    await withClient(async (client) => {
      await client.query('begin');
      const query = transactionExecutor(client).query('select 1 as n', []);
      const commit = client.query('commit');
      expect(await query).toEqual([{ n: 1 }]);
      await commit;
    });
  });

  it('is refused in a failed transaction, and taken again once rolled back to a savepoint', async () => {
    await withClient(async (client) => {
      await client.query('begin');
      await client.query('savepoint before');
      await fail(client);
      expect(recognise(client)).toThrow(expect.objectContaining({ code: 'TRANSACTION_ABORTED' }));
      await client.query('rollback to savepoint before');
      expect(recognise(client)).not.toThrow();
    });
  });
});

describe('a Kysely transaction', () => {
  it('runs statements on its own connection, in the transaction', async () => {
    await db.transaction().execute(async (tx) => {
      const [first] = await transactionExecutor(tx).query(`${backend}, now() as began`, ['a']);
      const [second] = await transactionExecutor(tx).query(`${backend}, now() as began`, ['a']);
      expect(first).toEqual(second);
      expect(first).toHaveProperty('given', 'a');
    });
  });

  it('may have plugins and a schema', async () => {
    await db.transaction().execute(async (tx) => {
      const dressed = tx.withPlugin(new CamelCasePlugin()).withSchema('elsewhere');
      expect(await transactionExecutor(dressed).query('select $1::int as n', [1])).toEqual([{ n: 1 }]);
    });
  });

  it('may be a controlled one, until its end', async () => {
    const committed = await db.startTransaction().execute();
    expect(await transactionExecutor(committed).query('select 1 as n', [])).toEqual([{ n: 1 }]);
    await committed.commit().execute();
    expect(recognise(committed)).toThrow(expect.objectContaining({ code: 'NOT_IN_TRANSACTION' }));
    expect(recognise(committed)).toThrow(/has been committed/);

    const rolledBack = await db.startTransaction().execute();
    await rolledBack.rollback().execute();
    expect(recognise(rolledBack)).toThrow(/has been rolled back/);
  });

  it('is refused as a mere connection', async () => {
    await db.connection().execute((connection) => {
      expect(recognise(connection)).toThrow(expect.objectContaining({ code: 'NOT_IN_TRANSACTION' }));
      return Promise.resolve();
    });
  });

  it('runs nothing after its end', async () => {
    const ended = await db.transaction().execute((tx) => Promise.resolve(transactionExecutor(tx)));
    await expect(ended.query('select 1', [])).rejects.toThrow(/already committed/);
  });
});
