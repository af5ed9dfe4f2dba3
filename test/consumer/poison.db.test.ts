import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { retryDeadLetters } from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';
import type { MemberOptions } from './member-process.ts';

/** Runs a member in a process of its own until that has ended. Returns the signal that it ended by. */
async function runUntilItDies(stream: Stream, options: Partial<MemberOptions>): Promise<unknown> {
  const script = fileURLToPath(new URL('member-process.ts', import.meta.url));
  const { connectionString } = stream.database;
  // Under one name, the next process takes the partitions at once: nobody waits for a lease.
  const told: MemberOptions = { connectionString, memberId: 'victim', leaseMs: 300_000, ...options };
  const child = spawn(process.execPath, [script, JSON.stringify(told)], { stdio: ['ignore', 'ignore', 'inherit'] });
  const [, signal] = (await once(child, 'exit')) as unknown[];
  return signal;
}

it('a message of a work queue with which a handler ends the process runs out of attempts, and the others are handled once', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  await stream.publish(...counts(['a', 'b', 'c'], 3));
  const poison = { diesAt: 2, attempts: 1, mode: 'work-queue' } as const;
  for (let death = 1; death <= 4; death++) expect(await runUntilItDies(stream, poison)).toBe('SIGKILL');
  const survivor = stream
    .consumer({ mode: 'work-queue', memberId: 'victim', retries: { attempts: 1 } })
    .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, 'survivor'));
  await survivor.start();
  await stream.untilEffects(8);
  await until(() => survivor.status().dead === 1);
  const numbers = Object.entries(await stream.numbers()).map(([key, ns]) => [key, ns.sort((a, b) => a - b)]);
  expect(Object.fromEntries(numbers)).toEqual({ a: [1, 3], b: range(3), c: range(3) });
  expect(await stream.rows('select key, reason, attempts, blocks from tailrace.parked_message')).toEqual([
    { key: 'a', reason: 'PROCESS_DIED', attempts: 1, blocks: false },
  ]);
  await until(async () => (await stream.rows('select from tailrace.suspect_attempt')).length === 0);
  await retryDeadLetters({ group: 'counting' }, { database: stream.pool });
  await stream.untilEffects(9);
  await until(async () => (await stream.rows('select from tailrace.work_range')).length === 0);
});

it.each([
  { handler: 'a handler', inBatches: false },
  { handler: 'a handler of batches', inBatches: true },
])(
  'a message with which $handler ends the process runs out of attempts, and the others are handled once, in order',
  async ({ inBatches }) => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b', 'c'], 3));
    const poison = { diesAt: 2, attempts: 1, inBatches };
    // Nothing is recorded of the first two; by then there are suspects, and each that was begun is found out by itself.
    for (let death = 1; death <= 4; death++) expect(await runUntilItDies(stream, poison)).toBe('SIGKILL');
    const consumer = stream.consumer({ memberId: 'victim', retries: { attempts: 1 } });
    if (!inBatches) consumer.on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, 'survivor'));
    else {
      consumer.onBatch(Counted, async (events, { tx }) => {
        for (const { payload } of events) await addEffect(tx, payload, 'survivor');
      });
    }
    await consumer.start();
    await stream.untilEffects(8);
    expect(await stream.numbers()).toEqual({ a: [1, 3], b: range(3), c: range(3) });
    expect(consumer.status().dead).toBe(1);
    const letters = await stream.rows(
      `select key, payload ->> 'n' as n, reason, attempts, dead from tailrace.parked_message`,
    );
    expect(letters).toEqual([{ key: 'a', n: '2', reason: 'PROCESS_DIED', attempts: 1, dead: true }]);

    await retryDeadLetters({ group: 'counting' }, { database: stream.pool });
    await stream.untilEffects(9);
    expect((await stream.numbers())['a']).toEqual([1, 3, 2]);
    await stream.publish(...counts(['a'], 1, 4));
    await stream.untilEffects(10);
    await until(async () => (await stream.rows('select from tailrace.suspect_attempt')).length === 0);
  },
);
