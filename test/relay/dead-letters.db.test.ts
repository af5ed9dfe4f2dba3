import { describe, expect, test, vi } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { askForDeadLetters, type DeadLetterAction } from '../../src/broker/postgres/ask.ts';
import { postgresLog, type PostgresLog } from '../../src/broker/postgres/index.ts';
import { pollingSource, walSource } from '../../src/relay/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { createCounters, randomFrom, whileWriting } from '../source/writers.ts';
import { exact, inLog, judgeLog, patient, publishOne, relayOf, type Make } from './kit.ts';

vi.setConfig({ testTimeout: 180_000 }); // several waits, each of which may be long on a slow machine

interface Letter {
  position: string;
  topic: string;
  reason: string;
  attempts: number;
  asked: string | null;
}

async function lettersOf({ pool }: TestDatabase): Promise<Letter[]> {
  const { rows } = await pool.query<Letter>(
    'select position, topic, reason, attempts, asked from tailrace.relay_dead_letter order by position',
  );
  return rows;
}

async function ask(database: TestDatabase, action: DeadLetterAction): Promise<number> {
  const letters = await lettersOf(database);
  const positions = letters.map(({ position }) => position);
  return (await askForDeadLetters(database.pool, 'tailrace', action, positions)).length;
}

/** A log that creates no topics. */
const closedLog = ({ connectionString }: TestDatabase): PostgresLog =>
  postgresLog({ connectionString, createTopics: false });

async function createTopic(database: TestDatabase, name: string): Promise<void> {
  const log = closedLog(database);
  await log.createTopic(name, 4);
  await log.close();
}

describe.each([
  ['WAL', walSource],
  ['polling', pollingSource],
] as [string, Make][])('a message that cannot be routed, from the %s source', (_name, make) => {
  test('is set aside with its reason, and alarmed; the others go on, also of the same batch', async () => {
    await using database = await createTestDatabase();
    const log = closedLog(database);
    await log.createTopic('orders', 2);
    await database.pool.query(
      `select tailrace.publish(t, 'k', 'Counted', to_json(n)) from (values ('orders', 1), ('nowhere', 2), ('orders', 3)) v (t, n)`,
    );
    const errors: object[] = [];
    const logger = { ...silentLogger, error: (fields: object) => void errors.push(fields) };
    await using relay = relayOf(database, make, { log, logger });
    await relay.start();
    await expect.poll(() => relay.status(), patient).toMatchObject({ appended: 2, deadLettered: 1, state: 'leading' });
    expect(await lettersOf(database)).toEqual([
      { position: '2', topic: 'nowhere', reason: 'UNKNOWN_TOPIC', attempts: 1, asked: null },
    ]);
    expect(errors).toEqual([expect.objectContaining({ topic: 'nowhere', reason: 'UNKNOWN_TOPIC', messages: 1 })]);
    await publishOne(database);
    await expect.poll(() => relay.status().appended, patient).toBe(3);
    expect(await judgeLog(database)).toMatchObject({ lost: 0, doubled: 0, gaps: 0 });
  });

  test('is routed again when that is asked for, and stays a dead letter as long as it cannot be', async () => {
    await using database = await createTestDatabase();
    const log = closedLog(database);
    await using relay = relayOf(database, make, { log });
    await relay.start();
    await database.pool.query(
      `select tailrace.publish('nowhere', 'k' || n % 3, 'Counted', to_json(n)) from generate_series(1, 9) n`,
    );
    await expect.poll(async () => (await lettersOf(database)).length, patient).toBe(9);
    expect(await ask(database, 'retry')).toBe(9);
    const again = { topic: 'nowhere', attempts: 2, asked: null };
    await expect
      .poll(() => lettersOf(database), patient)
      .toEqual(Array.from({ length: 9 }, () => expect.objectContaining(again) as unknown));
    await log.createTopic('nowhere', 2);
    expect(await ask(database, 'retry')).toBe(9);
    await expect.poll(() => lettersOf(database), patient).toEqual([]);
    expect(await judgeLog(database)).toEqual({ committed: 9, ...exact });
    expect(relay.status()).toMatchObject({ appended: 9, deadLettered: 9 });
  });

  test('does not come back once it is discarded, and is not asked for anything else then', async () => {
    await using database = await createTestDatabase();
    {
      await using relay = relayOf(database, make, { log: closedLog(database) });
      await relay.start();
      await publishOne(database, 'nowhere');
      await expect.poll(() => relay.status().deadLettered, patient).toBe(1);
    }
    expect(await ask(database, 'discard')).toBe(1); // no relay runs: the next one does it
    expect(await ask(database, 'retry')).toBe(0);
    for (const source of [make, walSource, pollingSource]) {
      const log = closedLog(database);
      await log.createTopic('orders', 8);
      await using relay = relayOf(database, source, { log });
      await relay.start();
      await publishOne(database);
      await expect.poll(() => relay.status().appended, patient).toBe(1);
      await expect.poll(() => lettersOf(database), patient).toEqual([]);
      expect(relay.status().deadLettered).toBe(0);
    }
    expect(await inLog(database)).toBe(3);
  });
});

test.each([41, 42])('are exact while relays take turns in either mode (seed %i)', async (seed) => {
  await using database = await createTestDatabase();
  const random = randomFrom(seed);
  await createCounters(database.pool, 8);
  await createTopic(database, 'topic-0');
  let turns = 0;
  await whileWriting(database.pool, { writers: 4, transactions: 40, keys: 8, seed }, async () => {
    for (; turns < 8; turns++) {
      await using relay = relayOf(database, random() < 0.5 ? walSource : pollingSource, { log: closedLog(database) });
      await relay.start();
      const enough = 10 + Math.floor(random() * 60);
      await expect.poll(() => relay.status().deadLettered >= enough, patient).toBe(true);
    }
  });
  await using last = relayOf(database, random() < 0.5 ? walSource : pollingSource, { log: closedLog(database) });
  await last.start();
  await expect.poll(async () => (await judgeLog(database)).lost, patient).toBe(0);
  expect(await judgeLog(database), `seed ${seed}`).toMatchObject(exact);
  expect((await lettersOf(database)).filter(({ attempts }) => attempts !== 1)).toEqual([]); // none came twice
  await createTopic(database, 'topic-1');
  await ask(database, 'retry');
  await expect.poll(() => lettersOf(database), patient).toEqual([]);
  expect(await judgeLog(database), `seed ${seed}`).toMatchObject(exact);
  expect(await inLog(database)).toBe((await judgeLog(database)).committed);
});
