import { Kysely, PostgresDialect, type Transaction } from 'kysely';
import pg from 'pg';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { type TransactionHandle, transactionExecutor } from '../../src/postgres/executor.ts';

class PrismaClient {
  $transaction(): void {
    // not ours to know
  }
}

describe('transactionExecutor refuses', () => {
  it.each<[string, unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['a string', 'begin'],
    ['a function', () => undefined],
    ['an object', {}],
    ['an object', { query: () => undefined }],
    ['an object', Object.create(null)],
    ['an instance of PrismaClient', new PrismaClient()],
  ])('%s, and says what it takes', (found, handle) => {
    const recognise = (): unknown => transactionExecutor(handle as TransactionHandle);
    expect(recognise).toThrow(expect.objectContaining({ code: 'UNKNOWN_TRANSACTION_HANDLE' }));
    expect(recognise).toThrow(/Expected a pg client after BEGIN, or a Kysely transaction/);
    if (handle !== null) expect(recognise).toThrow(found);
  });

  it('a pg client of a version that cannot tell its transaction status, and names the version that can', () => {
    const client = new pg.Client();
    Object.defineProperty(client, 'getTransactionStatus', { value: undefined });
    const recognise = (): unknown => transactionExecutor(client);
    expect(recognise).toThrow(expect.objectContaining({ code: 'UNKNOWN_TRANSACTION_HANDLE' }));
    expect(recognise).toThrow(/pg to 8\.21/);
  });

  it('a pg client that is not connected', () => {
    const recognise = (): unknown => transactionExecutor(new pg.Client());
    expect(recognise).toThrow(expect.objectContaining({ code: 'NOT_IN_TRANSACTION' }));
    expect(recognise).toThrow(/not connected/);
  });

  it('a pg pool, and says how to come by a client', () => {
    // @ts-expect-error a pool is no transaction
    const recognise = (): unknown => transactionExecutor(new pg.Pool());
    expect(recognise).toThrow(expect.objectContaining({ code: 'NOT_IN_TRANSACTION' }));
    expect(recognise).toThrow(/pool\.connect\(\)/);
  });

  it('a Kysely instance that is no transaction', () => {
    const db = new Kysely<object>({ dialect: new PostgresDialect({ pool: new pg.Pool() }) });
    // @ts-expect-error Kysely's own type says that it is no transaction
    const recognise = (): unknown => transactionExecutor(db);
    expect(recognise).toThrow(expect.objectContaining({ code: 'NOT_IN_TRANSACTION' }));
    expect(recognise).toThrow(/db\.transaction\(\)/);
  });
});

describe('TransactionHandle', () => {
  it('takes the transactions of pg and Kysely, whatever their database type', () => {
    expectTypeOf<pg.Client>().toExtend<TransactionHandle>();
    expectTypeOf<pg.PoolClient>().toExtend<TransactionHandle>();
    expectTypeOf<pg.ClientBase>().toExtend<TransactionHandle>();
    expectTypeOf<Transaction<{ orders: { id: string } }>>().toExtend<TransactionHandle>();
    expectTypeOf<Transaction<unknown>>().toExtend<TransactionHandle>();
    expectTypeOf<pg.Pool>().not.toExtend<TransactionHandle>();
    expectTypeOf<Kysely<{ orders: { id: string } }>>().not.toExtend<TransactionHandle>();
  });
});
