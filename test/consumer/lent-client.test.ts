import type pg from 'pg';
import { describe, expect, it, vi } from 'vitest';
import { lendClient } from '../../src/consumer/lent-client.ts';

const answered = { rows: [] };

function lend(): { tx: pg.PoolClient; sent: unknown[]; loan: ReturnType<typeof lendClient> } {
  const sent: unknown[] = [];
  const query = (...given: unknown[]): Promise<unknown> => {
    sent.push(given[0]);
    return Promise.resolve(answered);
  };
  const loan = lendClient({ query } as unknown as pg.PoolClient);
  return { tx: loan.tx, sent, loan };
}

describe('a client that is lent', () => {
  it.each([
    'commit',
    'COMMIT;',
    ' /* done */ -- really\n end',
    'rollback',
    'rollback and chain',
    'abort',
    'begin',
    'start transaction',
    "prepare transaction 'x'",
    'rollback work',
  ])('does not run what would end the transaction: %j', async (text) => {
    const { tx, sent, loan } = lend();
    const refused = { code: 'NOT_IN_TRANSACTION', message: expect.stringContaining('was not run') as string };
    await expect(tx.query(text)).rejects.toMatchObject(refused);
    await expect(tx.query({ text, values: [] })).rejects.toMatchObject(refused);
    const callback = vi.fn();
    tx.query(text, callback);
    await Promise.resolve();
    expect(callback).toHaveBeenCalledWith(expect.objectContaining(refused));
    expect(sent).toEqual([]);
    expect(loan.refused).toMatchObject(refused);
  });

  it.each([
    'savepoint here',
    'rollback to here',
    'rollback to savepoint here',
    'ROLLBACK WORK TO here',
    'release here',
    "insert into notes values ('commit')",
    'select begin_at from committed',
    'endow',
    'prepare one as select 1',
  ])('runs everything else: %j', async (text) => {
    const { tx, sent, loan } = lend();
    await expect(tx.query(text)).resolves.toBe(answered);
    expect(sent).toEqual([text]);
    expect(loan.refused).toBeUndefined();
  });

  it('refuses queries once it was taken back, and to be given away', async () => {
    const { tx, sent, loan } = lend();
    expect(() => tx.release()).toThrow(expect.objectContaining({ code: 'NOT_IN_TRANSACTION' }));
    loan.takeBack();
    await expect(tx.query('select 1')).rejects.toMatchObject({ code: 'NOT_IN_TRANSACTION' });
    expect(sent).toEqual([]);
  });
});
