import { expect, it } from 'vitest';
import { keyHash, partitionAmong } from '../../src/broker/partitioner.ts';
import type { Consumer } from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

const keys = Array.from({ length: 24 }, (_, at) => `key ${at}`);
const allOf = (last: number): Record<string, number[]> => Object.fromEntries(keys.map((key) => [key, range(last)]));
const partitionOfKey = (key: string, ...layout: number[]): number => partitionAmong(keyHash(key), layout);

const member = (stream: Stream, memberId: string): Consumer =>
  stream.consumer({ memberId }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, memberId));

it('a partition that was added is not handled before the others have come to where they ended', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  const gate = Promise.withResolvers<undefined>();
  const begun = Promise.withResolvers<undefined>();
  const slow = keys.find((key) => partitionOfKey(key, 2) === 1 && partitionOfKey(key, 2, 5) > 1)!;
  const one = stream.consumer({ memberId: 'one', concurrency: 8 }).on(Counted, async ({ payload }, { tx }) => {
    if (payload.key === slow && payload.n === 1) {
      begun.resolve(undefined);
      await gate.promise;
    }
    await addEffect(tx, payload);
  });
  await one.start();
  await stream.publish(...counts(keys, 1));
  await begun.promise; // or the other member, whose handler waits for nothing, could be the one that handles it
  await stream.log.addPartitions('numbers', 5);
  await stream.publish(...counts(keys, 2, 2));
  const two = member(stream, 'two'); // asks the log when it starts, the other one after a while
  await two.start();
  const stayed = keys.filter((key) => partitionOfKey(key, 2, 5) < 2);
  await stream.untilEffects(keys.length - 1 + 2 * stayed.length);
  const added = await stream.rows(
    'select partition, opens_after, owner, wanted is not null as wanted from tailrace.consumer_cursor where partition > 1 order by 1',
  );
  expect(added).toHaveLength(3);
  for (const row of added) expect(row).toMatchObject({ owner: null, wanted: true });
  const moved = (await stream.effects()).filter(({ key, n }) => n > 1 && !stayed.includes(key));
  expect(moved).toEqual([]);

  gate.resolve(undefined);
  await stream.untilEffects(3 * keys.length);
  expect(await stream.numbers()).toEqual(allOf(3));
});

it('every key stays in order while a topic grows under members that come and go, and a group that begins later reads all of it', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  let published = 0;
  const publishSome = async (): Promise<void> => {
    for (const n of [1, 2, 3]) await stream.publish(...counts(keys, 1, published + n));
    published += 3;
  };
  await member(stream, 'lasting').start();
  for (const partitions of [3, 4, 9]) {
    const passing = member(stream, `passing ${partitions}`);
    await publishSome();
    await Promise.all([publishSome(), stream.log.addPartitions('numbers', partitions)]);
    await publishSome();
    await passing.start();
    await until(() => passing.status().assignments.length > 0);
    await passing.stop();
  }
  await member(stream, 'last').start();
  await stream.untilEffects(published * keys.length);
  expect(await stream.numbers()).toEqual(allOf(published));
  expect((await stream.log.ends('numbers')).filter(({ end }) => end > 0n).length).toBeGreaterThan(3);

  await stream.pool.query('truncate effect');
  const late = stream.consumer({ group: 'late' }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
  await late.start();
  await stream.untilEffects(published * keys.length);
  expect(await stream.numbers()).toEqual(allOf(published));
});
