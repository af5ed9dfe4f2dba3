import { expect, it } from 'vitest';
import { createRelayDaemon, type RelayStatus } from '../../src/daemon/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';

const MODES = ['wal', 'polling'] as const;
const patient = { timeout: 60_000, interval: 20 };

function optionsFor({ connectionString, name }: TestDatabase) {
  return { databaseUrl: connectionString, slot: name, leaseMs: 60_000 };
}

async function publish({ pool }: TestDatabase): Promise<void> {
  await pool.query(`select tailrace.publish('orders', 'a', 'OrderPlaced', '{}')`);
}

/** A session that its client has closed is listed for a moment longer. */
async function countSessions({ pool }: TestDatabase): Promise<number> {
  const result = await pool.query(
    `select from pg_stat_activity where datname = current_database() and application_name like 'tailrace%'`,
  );
  return result.rows.length;
}

it.each(MODES)('moves messages in %s mode between start and stop', async (mode) => {
  await using database = await createTestDatabase();
  const told: RelayStatus[] = [];
  await using daemon = createRelayDaemon({
    ...optionsFor(database),
    mode,
    onStatusChange: (status) => told.push(status),
  });
  expect(daemon.status()).toMatchObject({ state: 'stopped', appended: 0 });
  await daemon.start();
  expect(told.at(-1)?.state).toBe('leading');
  await expect.poll(() => daemon.status().source?.mode, patient).toBe(mode);
  await publish(database);
  await expect.poll(() => daemon.status().appended, patient).toBe(1);
  await daemon.stop();
  expect(daemon.status()).toMatchObject({ state: 'stopped', appended: 1 });
  expect(told.at(-1)?.state).toBe('stopped');
  await expect.poll(() => countSessions(database), patient).toBe(0);
});

it('goes on in one mode where the other stopped', async () => {
  await using database = await createTestDatabase();
  for (const mode of [...MODES, ...MODES]) {
    await publish(database);
    await using daemon = createRelayDaemon({ ...optionsFor(database), mode });
    await daemon.start();
    await expect.poll(() => daemon.status().appended, patient).toBe(1);
  }
  const log = await database.pool.query('select sum(count)::int as count from tailrace.log_entry');
  expect(log.rows).toEqual([{ count: 4 }]);
});

it('stands by while another leads', async () => {
  await using database = await createTestDatabase();
  await using first = createRelayDaemon(optionsFor(database));
  await first.start();
  await using second = createRelayDaemon(optionsFor(database));
  await second.start();
  expect(second.status().state).toBe('standby');
  await first.stop();
  await expect.poll(() => second.status().state, patient).toBe('leading');
});

it('tells why it halted: at its start', async () => {
  await using database = await createTestDatabase({ migrated: false });
  await using daemon = createRelayDaemon(optionsFor(database));
  await expect(daemon.start()).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
  expect(await daemon.halted).toMatchObject({ code: 'NOT_MIGRATED' });
  await daemon.stop();
  expect(daemon.status().state).toBe('halted');
});

it('tells why it halted: later', async () => {
  await using database = await createTestDatabase();
  await using daemon = createRelayDaemon({ ...optionsFor(database), mode: 'polling' });
  await daemon.start();
  await database.pool.query('drop table tailrace.outbox');
  expect(await daemon.halted).toBeInstanceOf(Error);
  expect(daemon.status().state).toBe('halted');
});

it('stops before it was started, more than once, and while it waits for a server', async () => {
  await using database = await createTestDatabase();
  const unused = createRelayDaemon(optionsFor(database));
  await unused.stop();
  await unused.stop();
  const waiting = createRelayDaemon({ databaseUrl: 'postgresql://nobody@127.0.0.1:1/nothing' });
  const started = waiting.start();
  await waiting.stop();
  await started;
});

it('refuses what it cannot work with', () => {
  const databaseUrl = 'postgresql://nobody@127.0.0.1:1/nothing';
  const create = (options: object) => () => createRelayDaemon({ databaseUrl, ...options });
  expect(create({ mode: 'magic' })).toThrow(/mode is "magic", expected wal or polling/);
  expect(create({ leaseMs: 5 })).toThrow(/leaseMs is 5/);
  expect(create({ slot: 'No' })).toThrow(/slot is "No"/);
  expect(create({ schema: 'No' })).toThrow(/schema name: "No"/);
});
