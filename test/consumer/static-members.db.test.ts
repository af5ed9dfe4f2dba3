import { expect, it } from 'vitest';
import type { Consumer, ConsumerOptions } from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, listeningLogger, range, Stream, until } from './kit.ts';

const keys = Array.from({ length: 16 }, (_, at) => `key ${at}`);

const member = (stream: Stream, memberId: string, options: Partial<ConsumerOptions> = {}): Consumer =>
  stream.consumer({ memberId, ...options }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, memberId));

interface Owned {
  readonly partition: number;
  readonly owner: string | null;
  readonly wanted: string | null;
  readonly epoch: string;
}

const owners = (stream: Stream): Promise<Owned[]> =>
  stream.rows('select partition, owner, wanted, epoch from tailrace.consumer_cursor order by partition');

/** Waits until a member has been heard three more times. */
async function afterHeartbeats(stream: Stream, memberId: string): Promise<void> {
  for (let heard = 0; heard < 3; heard += 1) {
    const expiry = async (): Promise<unknown> =>
      (await stream.rows('select expires_at::text from tailrace.consumer_member where member_id = $1', [memberId]))[0];
    const before = JSON.stringify(await expiry());
    await until(async () => JSON.stringify(await expiry()) !== before);
  }
}

it('a static member that is stopped keeps its partitions, and started again nothing moves', async () => {
  await using stream = await Stream.open({ partitions: 4 });
  const isStatic = { staticLeaseMs: 3_600_000 };
  await stream.publish(...counts(keys, 1));
  const one = member(stream, 'one', isStatic);
  await one.start();
  const two = member(stream, 'two');
  await two.start();
  await until(() => one.status().assignments.length === 2 && two.status().assignments.length === 2);
  await stream.untilEffects(keys.length);
  const before = await owners(stream);

  await one.stop();
  await stream.publish(...counts(keys, 1, 2));
  await afterHeartbeats(stream, 'two');
  const away = await owners(stream);
  expect(away.map(({ wanted }) => wanted)).toEqual(before.map(({ owner }) => owner));
  expect(away.filter(({ owner }) => owner === null)).toHaveLength(2);
  expect((await stream.effects()).filter(({ n, member: by }) => n === 2 && by === 'one')).toEqual([]);

  await member(stream, 'one', isStatic).start();
  await stream.untilEffects(2 * keys.length);
  expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(2)])));
  const after = await owners(stream);
  expect(after.map(({ owner }) => owner)).toEqual(before.map(({ owner }) => owner));
  const ofTwo = (rows: Owned[]): Owned[] => rows.filter(({ owner }) => owner === 'two');
  expect(ofTwo(after)).toEqual(ofTwo(before));
});

it('what a static member had goes to others once it has been away for too long', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  const one = member(stream, 'one', { staticLeaseMs: 500 });
  await one.start();
  await stream.publish(...counts(keys, 1));
  await stream.untilEffects(keys.length);
  await one.stop();
  await member(stream, 'two').start();
  await stream.publish(...counts(keys, 1, 2));
  await stream.untilEffects(2 * keys.length);
  expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(2)])));
});

it('of two processes with one name the later is the member, and the earlier one lets go for good', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  const logger = listeningLogger();
  const gate = Promise.withResolvers<undefined>();
  const isRunning = Promise.withResolvers<undefined>();
  const earlier = stream
    .consumer({ memberId: 'x', staticLeaseMs: 3_600_000, logger })
    .on(Counted, async ({ payload }, { tx }) => {
      isRunning.resolve(undefined);
      await gate.promise;
      await addEffect(tx, payload, 'earlier');
    });
  await earlier.start();
  await stream.publish(...counts(keys, 1));
  await isRunning.promise;
  const later = member(stream, 'x', { staticLeaseMs: 3_600_000 });
  await later.start();
  await until(() => earlier.status().problem !== undefined && earlier.status().assignments.length === 0);
  expect(earlier.status().problem).toMatch(/started later as the member x/);
  gate.resolve(undefined);
  await stream.untilEffects(keys.length);
  await earlier.stop();
  await stream.publish(...counts(keys, 1, 2));
  await stream.untilEffects(2 * keys.length);
  expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(2)])));
  expect((await stream.effects()).filter(({ member: by }) => by === 'earlier')).toEqual([]);
  expect(logger.lines.filter(({ level }) => level === 'error').map(({ message }) => message)).toContain(
    'A heartbeat failed',
  );
});
