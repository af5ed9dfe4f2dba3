import type pg from 'pg';
import { expect, it } from 'vitest';
import { closeClient, openClient } from '../../src/postgres/connection.ts';
import { createSlot } from '../../src/source/wal/slot.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';

it('may be tried again when the session that made the slot ends before its snapshot is read', async () => {
  await using database = await createTestDatabase();
  const control = await openClient({ connectionString: database.connectionString, applicationName: 'test control' });
  try {
    const creation = createSlot(
      beforeSnapshot(control, () => endCreator(database)),
      {
        connectionString: database.connectionString,
        slot: database.name,
        failover: false,
        allowed: async () => undefined,
      },
    );
    await expect(creation.done).rejects.toMatchObject({ code: 'REPLICATION_FAILED', retryable: true });
    await creation.close();
    const { rows } = await control.query('select 1 as answer');
    expect(rows).toEqual([{ answer: 1 }]);
  } finally {
    await closeClient(control);
  }
});

/** The same connection, which does something before it asks for a snapshot. */
function beforeSnapshot(control: pg.Client, act: () => Promise<void>): pg.Client {
  return new Proxy(control, {
    get(target, name) {
      if (name !== 'query') return Reflect.get(target, name, target) as unknown;
      return async (text: string, values?: unknown[]) => {
        if (text.includes('transaction snapshot')) await act();
        return target.query(text, values);
      };
    },
  });
}

/** Ends the session that is creating the slot, and waits until the server knows of it no more. */
async function endCreator({ pool }: TestDatabase): Promise<void> {
  await pool.query(
    `select pg_terminate_backend(pid, 30000) from pg_stat_activity
       where application_name = 'tailrace relay slot' and datname = current_database()`,
  );
}
