import { expect, it } from 'vitest';
import { createTestDatabase } from '../servers/test-database.ts';
import { addEffect, Counted, EFFECT_TABLE } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

const KEYS = ['a', 'b', 'c'];

it('handles what it has stored, each message once and in the order of its key, and leaves nothing behind', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  const consumer = stream
    .consumer({ delivery: 'store-first' })
    .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
  await stream.publish(...counts(KEYS, 10));
  await consumer.start();
  await stream.untilEffects(30);
  await stream.publish(...counts(KEYS, 10, 11));
  await stream.untilEffects(60);
  await until(async () => (await stream.rows('select from tailrace.inbox')).length === 0);
  await consumer.stop();
  expect(await stream.numbers()).toEqual({ a: range(20), b: range(20), c: range(20) });
  expect(consumer.status()).toMatchObject({ handled: 60, duplicates: 0, stored: 0, problem: undefined });
});
