import { expect, test as base } from 'vitest';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { keptLog, none, publish, relayUntil, takeAll, until } from './harness.ts';
import { judge, Ledger } from './ledger.ts';

/** These tests wait more than they work. */
const test = base.concurrent;

const MIB = 1024 ** 2;
const exact = { lost: 0, invented: 0, doubled: 0, reordered: 0 };

/** WAL that is not the outbox's. */
async function makeNoise(database: TestDatabase, mib: number): Promise<void> {
  await database.pool.query(`create table if not exists noise (text text)`);
  await database.pool.query(`insert into noise select repeat('x', 1000) from generate_series(1, $1)`, [mib * 1000]);
}

test('a slot that holds back much of its budget is warned of', async () => {
  await using database = await createTestDatabase();
  const logger = keptLog();
  const source = walSource({ connectionString: database.connectionString, logger, walBudgetBytes: MIB });
  const ledger = new Ledger();
  await publish(database, 1);
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  const reader = await source.open(ledger, none);
  await makeNoise(database, 2);
  await until(() => reader.status.walBudget?.level === 'full');
  expect(reader.status).toMatchObject({ mode: 'wal', walBudget: { budgetBytes: MIB, fullInMs: 0 } });
  await until(() => logger.lines.some((line) => line.startsWith('error: the slot')));
  await reader.close();
  expect(logger.lines.findLast((line) => line.includes('budget'))).toMatch(
    /^error: the slot tailrace_\d+ holds back [\d.]+ MiB of WAL, \d+ % of its budget of 1 MiB: held by .+; the budget is used up$/,
  );
});

test('a relay that drops its slot at the end of the budget goes on by polling, and then from a new slot', async () => {
  await using database = await createTestDatabase();
  const source = walSource({
    connectionString: database.connectionString,
    walBudgetBytes: 128 * MIB,
    onWalBudget: 'drop-slot',
  });
  const ledger = new Ledger();
  await publish(database, 3);
  await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  const slot = async (): Promise<string | undefined> => {
    const { rows } = await database.pool.query<{ xmin: string }>(
      'select catalog_xmin::text as xmin from pg_replication_slots where database = current_database()',
    );
    return rows[0]?.xmin;
  };
  const reader = await source.open(ledger, none);
  await publish(database, 3);
  await reader.next(none).catch(() => undefined); // and nothing is made durable from here on
  await until(async () => {
    await makeNoise(database, 16);
    return (await slot()) === undefined;
  });
  await expect(takeAll(reader, new Ledger())).rejects.toMatchObject({ retryable: true });
  await reader.close();
  await publish(database, 3);
  const { reasons } = await relayUntil(source, ledger, ({ status }) => status.mode === 'wal');
  expect(reasons[0]).toMatch(/^creating the replication slot/);
  await publish(database, 3);
  await relayUntil(source, ledger, async () => (await judge(database.pool, ledger)).lost === 0);
  expect(await judge(database.pool, ledger)).toMatchObject(exact);
});

test.each([
  [{ walBudgetBytes: 0 }, /walBudgetBytes is 0/],
  [{ walBudgetBytes: 1.5 }, /walBudgetBytes is 1.5/],
  [{ onWalBudget: 'panic' as 'warn' }, /onWalBudget is "panic"/],
])('%j is refused', (options, message) => {
  expect(() => walSource({ connectionString: 'postgresql://localhost/shop', ...options })).toThrow(message);
});
