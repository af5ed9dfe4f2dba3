import { expect, it } from 'vitest';
import { setCanaryShare, type Consumer, type ConsumerOptions } from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

const keys = Array.from({ length: 12 }, (_, at) => `key ${at}`);

/** A member whose effects tell its group. */
const member = (stream: Stream, group: string, options: Partial<ConsumerOptions>): Consumer =>
  stream
    .consumer({ group, concurrency: 2, ...options })
    .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, group));

/** The owner of each partition, once all of them are with whom they are to be with. */
async function settled(stream: Stream, group: string): Promise<string[]> {
  let owners: string[] = [];
  await until(async () => {
    const rows = await stream.rows<{ owner: string | null; wanted: string | null }>(
      'select owner, wanted from tailrace.consumer_cursor where group_name = $1 order by partition',
      [group],
    );
    owners = rows.flatMap(({ owner, wanted }) => (owner !== null && owner === wanted ? [owner] : []));
    return owners.length === rows.length && rows.length > 0;
  });
  return owners;
}

const expected = (last: number): Record<string, number[]> => Object.fromEntries(keys.map((key) => [key, range(last)]));

async function numbersOf(stream: Stream, group: string): Promise<Record<string, number[]>> {
  const numbers: Record<string, number[]> = {};
  for (const { key, n, member: by } of await stream.effects()) if (by === group) (numbers[key] ??= []).push(n);
  return numbers;
}

it('members are replaced one at a time while messages flow: each is handled once and in order, and static ones keep what they have', async () => {
  await using stream = await Stream.open({ partitions: 4 });
  await stream.publish(...counts(keys, 1));
  const fixed = (memberId: string): Consumer => member(stream, 'static', { memberId, staticLeaseMs: 3_600_000 });
  let statics = [fixed('s1'), fixed('s2')];
  let others = ['d1', 'd2'].map((memberId) => member(stream, 'rolling', { memberId }));
  for (const each of [...statics, ...others]) await each.start();
  const before = await settled(stream, 'static');
  expect(new Set(before).size).toBe(2);

  let published = 1;
  const over = new AbortController();
  const publishing = (async () => {
    while (!over.signal.aborted) {
      published += 1;
      await stream.publish(...counts(keys, 1, published));
    }
  })();
  for (const [at, memberId] of ['s1', 's2'].entries()) {
    await statics[at]?.stop();
    statics = statics.with(at, fixed(memberId));
    await statics[at]?.start();
    await others[at]?.stop();
    others = others.with(at, member(stream, 'rolling', { memberId: `d${at + 3}` }));
    await others[at]?.start();
  }
  over.abort();
  await publishing;
  expect(await settled(stream, 'static')).toEqual(before);
  expect(new Set(await settled(stream, 'rolling'))).toEqual(new Set(['d3', 'd4']));
  await stream.untilEffects(2 * keys.length * published);
  for (const group of ['static', 'rolling']) expect(await numbersOf(stream, group)).toEqual(expected(published));
});

it('canaries get their share of the partitions, and others get it back', async () => {
  await using stream = await Stream.open({ partitions: 4 });
  const start = async (memberId: string, canary = false): Promise<Consumer> => {
    const consumer = member(stream, 'g', { memberId, canary });
    await consumer.start();
    return consumer;
  };
  await stream.publish(...counts(keys, 1));
  await start('a');
  const canary = await start('c', true);
  const partitionsOf = async (memberId: string): Promise<number> =>
    (await settled(stream, 'g')).filter((owner) => owner === memberId).length;
  expect(await partitionsOf('c')).toBe(0);
  const share = (percent: number): ReturnType<typeof setCanaryShare> =>
    setCanaryShare({ database: stream.pool, group: 'g', percent });
  expect(await share(50)).toEqual({ percent: 50, canaries: 1, others: 1, partitions: 4, ofCanaries: 2 });
  await until(async () => (await partitionsOf('c')) === 2);
  await stream.publish(...counts(keys, 1, 2));
  await until(() => canary.status().handled > 0);
  await stream.untilEffects(2 * keys.length);
  await canary.stop();
  await until(async () => (await partitionsOf('a')) === 4);
  await stream.publish(...counts(keys, 1, 3));
  await start('d', true);
  await until(async () => (await partitionsOf('d')) === 2);
  expect(await share(0)).toMatchObject({ ofCanaries: 0 });
  await until(async () => (await partitionsOf('d')) === 0);
  await stream.publish(...counts(keys, 1, 4));
  await stream.untilEffects(4 * keys.length);
  expect(await stream.numbers()).toEqual(expected(4));
  await expect(share(101)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
});
