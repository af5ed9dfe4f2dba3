import { expect, it } from 'vitest';
import {
  abortCutover,
  cloneGroup,
  cutOver,
  retryDeadLetters,
  type Consumer,
  type CutoverProgress,
  type CutoverResult,
} from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

const keys = Array.from({ length: 6 }, (_, at) => `key ${at}`);
/** Its second message cannot be handled by the old groups, and holds up the later ones. */
const BAD = 'bad';
/** Its second message does not end while the old group has it. */
const SLOW = 'slow';

const member = (stream: Stream, group: string, memberId: string): Consumer =>
  stream
    .consumer({ group, memberId, deadLetters: 'strict', retries: { attempts: 1 }, drainTimeoutMs: 0 })
    .on(Counted, async ({ payload }, { tx, signal }) => {
      const isOld = group === 'old';
      if (isOld && payload.key === BAD && payload.n === 2) throw new Error('not by the old ones');
      await addEffect(tx, payload, group);
      if (!isOld || payload.key !== SLOW || payload.n !== 2) return;
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      throw new Error('given up');
    });

const cutover = (
  stream: Stream,
  from: string,
  to: string,
  more: Partial<Parameters<typeof cutOver>[0]> = {},
): Promise<CutoverResult> => cutOver({ log: stream.log, database: stream.pool, from, to, ...more });

const untilOwners = (stream: Stream, group: string, count: number): Promise<void> =>
  until(async () => {
    const sql = 'select from tailrace.consumer_cursor where group_name = $1 and owner is not null';
    return (await stream.rows(sql, [group])).length === count;
  });

it('a group takes over where another one stops, and hands back, with nothing lost, doubled or out of order', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  await stream.publish(...counts([SLOW, BAD, ...keys], 3));
  for (const id of ['one', 'two']) await member(stream, 'old', id).start();
  // All but the second and third of the slow and the bad key.
  await stream.untilEffects(3 * keys.length + 2);
  await until(async () => (await stream.rows('select from tailrace.parked_message')).length === 2);

  const asked: CutoverProgress[] = [];
  const begun = Promise.withResolvers<undefined>();
  const ended = cutover(stream, 'old', 'new', {
    onProgress: (progress) => {
      asked.push(progress);
      begun.resolve(undefined);
    },
  });
  await begun.promise;
  expect(asked[0]).toEqual({ waitsFor: 'members', topics: ['numbers'] });
  await stream.publish(...counts(keys, 1, 4)); // the old group goes on meanwhile
  await stream.untilEffects(4 * keys.length + 2);
  await member(stream, 'new', 'three').start();
  const result = await ended;
  expect(result).toMatchObject({ places: 2, parked: 2 });
  expect(result.handled).toBeGreaterThan(0); // beyond the slow one
  await untilOwners(stream, 'new', 2);
  await stream.publish(...counts([SLOW, BAD, ...keys], 1, 5));
  await stream.untilEffects(5 * keys.length + 1 + 4);
  expect(await stream.numbers()).toMatchObject({ [SLOW]: [1, 2, 3, 5], [BAD]: [1] });
  await retryDeadLetters({ group: 'new' }, { database: stream.pool });
  await stream.untilEffects(5 * keys.length + 4 + 4);
  expect(await stream.numbers()).toEqual({
    ...Object.fromEntries(keys.map((key) => [key, range(5)])),
    [SLOW]: [1, 2, 3, 5],
    [BAD]: [1, 2, 3, 5],
  });
  expect((await stream.effects()).filter(({ n, member: by }) => n === 5 && by === 'old')).toEqual([]);
  await expect(cutover(stream, 'old', 'newer')).rejects.toMatchObject({ code: 'GROUP_IN_USE' });
  await expect(abortCutover({ database: stream.pool, from: 'old', to: 'new' })).rejects.toThrow(/cut over from new/);

  await stream.publish(...counts([SLOW, ...keys], 1, 6));
  expect(await cutover(stream, 'new', 'old')).toMatchObject({ places: 2, parked: 0 }); // back, while messages come
  await untilOwners(stream, 'old', 2);
  await stream.publish(...counts([SLOW, ...keys], 1, 7));
  await stream.untilEffects(7 * keys.length + 6 + 4);
  expect(await stream.numbers()).toEqual({
    ...Object.fromEntries(keys.map((key) => [key, range(7)])),
    [SLOW]: [1, 2, 3, 5, 6, 7],
    [BAD]: [1, 2, 3, 5],
  });
  expect((await stream.effects()).filter(({ n, member: by }) => n === 7 && by !== 'old')).toEqual([]);
});

it('a cutover that does not come to its end leaves the old group as it was; so does one that is undone', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  await stream.publish(...counts(keys, 1));
  const old = member(stream, 'old', 'one');
  await old.start();
  await stream.untilEffects(keys.length);
  await expect(cutover(stream, 'old', 'new', { timeoutMs: 0 })).rejects.toThrow(
    /No member of new handles numbers. old goes on/,
  );
  const waiting = member(stream, 'new', 'two');
  await waiting.start();
  await stream.pool.query(`update tailrace.consumer_group set hands_over_to = 'new' where name = 'old'`); // and died
  await untilOwners(stream, 'old', 0);
  await stream.publish(...counts(keys, 1, 2));
  const groups = { database: stream.pool, from: 'old', to: 'new' };
  await expect(cutOver({ ...groups, log: stream.log, to: 'other' })).rejects.toMatchObject({ code: 'GROUP_IN_USE' });
  await expect(cloneGroup({ ...groups, to: 'other' })).rejects.toMatchObject({ code: 'GROUP_IN_USE' });
  expect(await abortCutover(groups)).toBe(true);
  expect(await abortCutover(groups)).toBe(false);
  await stream.untilEffects(2 * keys.length);
  expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(2)])));
  expect(waiting.status()).toMatchObject({ assignments: [], handled: 0 });

  await old.stop();
  // As a member leaves it that was killed before it had stored its last places.
  await stream.pool.query(`update tailrace.consumer_cursor set owner = 'gone', next_offset = next_offset - 1`);
  expect(await cutover(stream, 'old', 'new')).toEqual({ places: 2, handled: 2, parked: 0 });
  await stream.publish(...counts(keys, 1, 3));
  await stream.untilEffects(3 * keys.length);
  expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(3)])));
});

it('a clone runs beside its group, from the same place, with what is set aside below it', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  await stream.publish(...counts([BAD, ...keys], 3));
  await member(stream, 'old', 'one').start();
  const published = 3 * (keys.length + 1);
  const isStored = (): Promise<void> =>
    until(
      async () =>
        (await stream.rows('select from tailrace.consumer_cursor where next_offset = $1', [published])).length === 1,
    );
  await isStored();
  expect(await cloneGroup({ database: stream.pool, from: 'old', to: 'shadow' })).toEqual({ places: 1, parked: 2 });
  await expect(cloneGroup({ database: stream.pool, from: 'old', to: 'shadow' })).rejects.toThrow(/is there already/);
  await expect(cutover(stream, 'old', 'shadow')).rejects.toThrow(/has places of its own/);
  await member(stream, 'shadow', 'two').start();
  await stream.publish(...counts([BAD, ...keys], 1, 4));
  await retryDeadLetters({ group: 'shadow' }, { database: stream.pool });
  const ofShadow = async (): Promise<Record<string, number[]>> => {
    const numbers: Record<string, number[]> = {};
    for (const { key, n, member: by } of await stream.effects()) if (by === 'shadow') (numbers[key] ??= []).push(n);
    return numbers;
  };
  const expected = { ...Object.fromEntries(keys.map((key) => [key, [4]])), [BAD]: [2, 3, 4] };
  await until(async () => Object.values(await ofShadow()).flat().length >= keys.length + 3);
  expect(await ofShadow()).toEqual(expected);
});
