import { describe, expect, test, vi } from 'vitest';
import { askForMode, readRelayStanding, type RelayStanding } from '../../src/broker/postgres/ask.ts';
import { pollingSource, walSource, type RelayMode } from '../../src/relay/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { createCounters, whileWriting } from '../source/writers.ts';
import { exact, inLog, judgeLog, patient, publishOne, relayOf } from './kit.ts';

vi.setConfig({ testTimeout: 180_000 }); // several waits, each of which may be long on a slow machine

const switchTo = ({ pool }: TestDatabase, mode: RelayMode | undefined): Promise<void> =>
  askForMode(pool, 'tailrace', mode);

const standing = ({ pool }: TestDatabase): Promise<RelayStanding | undefined> => readRelayStanding(pool, 'tailrace');

describe('a relay', () => {
  test(
    'reads from the WAL and polls by turns, 20 times under load, and leaves an exact log',
    { timeout: 400_000 },
    async () => {
      await using database = await createTestDatabase();
      await createCounters(database.pool, 8);
      await using relay = relayOf(database, walSource);
      await relay.start();
      let switches = 0;
      await whileWriting(database.pool, { writers: 4, transactions: 25, keys: 8, seed: 51 }, async () => {
        for (const modes = ['polling', 'wal'] as const; switches < 20; switches++) {
          const mode = modes[switches % 2];
          await switchTo(database, mode);
          await expect.poll(() => relay.status().source?.mode, patient).toBe(mode);
          const before = await inLog(database);
          await expect.poll(() => inLog(database), patient).toBeGreaterThan(before + 10);
        }
      });
      await expect.poll(async () => (await judgeLog(database)).lost, patient).toBe(0);
      expect(await judgeLog(database)).toMatchObject(exact);
    },
  );

  test('keeps to what was asked for after it is started anew, and until that is taken back', async () => {
    await using database = await createTestDatabase();
    {
      await using first = relayOf(database, walSource);
      await first.start();
      await switchTo(database, 'polling');
      await expect.poll(() => first.status().source?.mode, patient).toBe('polling');
    }
    await using second = relayOf(database, walSource);
    await second.start();
    expect(second.status()).toMatchObject({ source: { mode: 'polling' }, wantedMode: 'polling' });
    await expect
      .poll(() => standing(database), patient)
      .toMatchObject({ isHeld: true, wantedMode: 'polling', mode: 'polling', reason: null });
    await switchTo(database, undefined);
    await expect.poll(() => standing(database), patient).toMatchObject({ wantedMode: null, mode: 'wal', reason: null });
    expect(second.status().wantedMode).toBeUndefined();
    await publishOne(database);
    await expect.poll(() => inLog(database), patient).toBe(1);
  });

  test('says why it does not read as it was asked to', async () => {
    await using database = await createTestDatabase();
    await using relay = relayOf(database, pollingSource);
    await relay.start();
    await switchTo(database, 'wal');
    await expect
      .poll(() => standing(database), patient)
      .toMatchObject({ mode: 'polling', reason: expect.stringMatching(/pollingSource, which only polls/) as string });
    await publishOne(database);
    await expect.poll(() => inLog(database), patient).toBe(1);
  });
});
