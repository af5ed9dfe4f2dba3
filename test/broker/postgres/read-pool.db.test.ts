import { expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { ReadPool } from '../../../src/broker/postgres/read-pool.ts';
import { createTestDatabase } from '../../servers/test-database.ts';

it('rejects, and does not end the process, when the server ends a transaction', async () => {
  await using database = await createTestDatabase();
  const pool = new ReadPool(database.connectionString, 'tailrace', silentLogger);
  try {
    const reading = pool.transaction(async (query) => {
      const [[pid] = []] = await query('select pg_backend_pid()');
      await database.pool.query('select pg_terminate_backend($1, 30000)', [pid]);
      for (;;) await query('select 1');
    });
    await expect(reading).rejects.toThrow();
    expect(await pool.query('select $1::text', ['again'])).toEqual([['again']]);
  } finally {
    await pool.close();
  }
});
