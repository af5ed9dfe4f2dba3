import type pg from 'pg';
import { expect, it, vi } from 'vitest';
import { askForDeadLetters, askForMode } from '../../../src/broker/postgres/ask.ts';
import type { Append, LogBatch } from '../../../src/broker/postgres/index.ts';
import { acquire, createLogFixture, idsByPartition } from './fixture.ts';

vi.setConfig({ testTimeout: 180_000 }); // several waits, each of which may be long on a slow machine
const patient = { timeout: 50_000, interval: 20 };

const lost = (...ids: number[]): Pick<LogBatch, 'unroutable'> => ({
  unroutable: [{ topic: 'nowhere', ids, reason: 'UNKNOWN_TOPIC', error: 'no such topic' }],
});

const to = (partition: number, ...ids: number[]): Append => ({ topic: 'orders', partition, ids });

async function lettersOf(pool: pg.Pool): Promise<{ position: number; attempts: number }[]> {
  const { rows } = await pool.query<{ position: string; attempts: number }>(
    'select position, attempts from tailrace.relay_dead_letter order by position',
  );
  return rows.map(({ position, attempts }) => ({ position: Number(position), attempts }));
}

it('are written with the append of their batch, and count as appended until a checkpoint covers them', async () => {
  await using fixture = await createLogFixture();
  const writer = await acquire(fixture.openLog());
  await writer.partitionCount('orders');
  await writer.append({ appends: [to(0, 3, 1)], ...lost(4, 2), progress: 'one' });
  await writer.append({ appends: [], ...lost(5), progress: 'two' });
  expect(await lettersOf(fixture.pool)).toEqual([2, 4, 5].map((position) => ({ position, attempts: 1 })));
  expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, [3, 1]]]));
  expect(await writer.appendedSinceCheckpoint()).toEqual(Float64Array.of(1, 2, 3, 4, 5));
  await writer.append({ appends: [], progress: 'three', checkpoint: 'safe' });
  expect(await writer.appendedSinceCheckpoint()).toEqual(new Float64Array());
  await writer.append({ appends: [], ...lost(6), progress: 'four' });
  await writer.release();
  const next = await acquire(fixture.openLog());
  expect(await next.appendedSinceCheckpoint()).toEqual(Float64Array.of(6));
});

it('come into the log by a retry and leave the dead letters at once; what is in vain again is counted', async () => {
  await using fixture = await createLogFixture();
  await fixture.insert(3, 'nowhere');
  const writer = await acquire(fixture.openLog());
  await writer.partitionCount('orders');
  await writer.append({ appends: [], ...lost(1, 2, 3), progress: 'one' });
  expect(await askForDeadLetters(fixture.pool, 'tailrace', 'retry', ['3', '1', '2', '9'])).toEqual(['1', '2', '3']);
  expect(await askForDeadLetters(fixture.pool, 'tailrace', 'discard', ['1'])).toEqual([]); // the one or the other
  const letters = await writer.requests.deadLettersToRetry();
  expect(letters).toMatchObject({ ids: [1, 2, 3], topics: ['nowhere', 'nowhere', 'nowhere'] });
  await writer.append({ appends: [to(0, 1, 3)], retried: [1, 3], ...lost(2), progress: 'one' });
  expect(await lettersOf(fixture.pool)).toEqual([{ position: 2, attempts: 2 }]);
  expect((await writer.requests.deadLettersToRetry()).ids).toEqual([]);
  expect(await writer.appendedSinceCheckpoint()).toEqual(Float64Array.of(1, 2, 3));
});

it('are discarded once a checkpoint covers them, and not before', async () => {
  await using fixture = await createLogFixture();
  const writer = await acquire(fixture.openLog());
  await writer.append({ appends: [], ...lost(1), progress: 'one', checkpoint: 'safe' });
  await writer.append({ appends: [], ...lost(2), progress: 'two' });
  await askForDeadLetters(fixture.pool, 'tailrace', 'discard', ['1', '2']);
  expect(await writer.requests.discardDeadLetters()).toEqual([1]);
  expect(await writer.requests.discardDeadLetters()).toEqual([]);
  await writer.append({ appends: [], progress: 'three', checkpoint: 'safer' });
  expect(await writer.requests.discardDeadLetters()).toEqual([2]);
  expect(await lettersOf(fixture.pool)).toEqual([]);
});

it('are left alone by a writer that was fenced', async () => {
  await using fixture = await createLogFixture();
  await fixture.insert(1, 'nowhere');
  const fenced = await acquire(fixture.openLog());
  await fenced.partitionCount('orders');
  await fenced.append({ appends: [], ...lost(1), progress: 'one', checkpoint: 'safe' });
  await fixture.pool.query('update tailrace.relay_lease set epoch = epoch + 1');
  await askForDeadLetters(fixture.pool, 'tailrace', 'discard', ['1']);
  expect(await fenced.requests.discardDeadLetters().catch(() => [])).toEqual([]);
  await expect(fenced.append({ appends: [], ...lost(2), progress: 'two' })).rejects.toMatchObject({
    code: 'LEASE_LOST',
  });
  await expect(fenced.append({ appends: [to(0, 1)], retried: [1], progress: 'two' })).rejects.toMatchObject({
    code: 'LEASE_LOST',
  });
  expect(await lettersOf(fixture.pool)).toEqual([{ position: 1, attempts: 1 }]);
});

it('a writer is told of what operators ask for: on a notification, and with a renewal where that was lost', async () => {
  await using fixture = await createLogFixture();
  let told = 0;
  const writer = await fixture.openLog().acquireWriter({
    holder: 'told',
    leaseMs: 3_600_000, // so that no renewal comes by itself
    signal: new AbortController().signal,
    onAsked: () => (told += 1),
  });
  expect(writer.requests.mode).toBeUndefined();
  await askForMode(fixture.pool, 'tailrace', 'polling');
  await expect.poll(() => [told > 0, writer.requests.mode], patient).toEqual([true, 'polling']);
  await writer.release();

  const renewing = await fixture.openLog().acquireWriter({
    holder: 'renewing',
    leaseMs: 15_000, // renewed every five seconds
    signal: new AbortController().signal,
  });
  expect(renewing.requests.mode).toBe('polling'); // kept
  await fixture.pool.query('update tailrace.relay_lease set wanted_mode = null'); // and no notification
  await expect.poll(() => renewing.requests.mode, patient).toBeUndefined();
});
