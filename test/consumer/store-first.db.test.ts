import { expect, it } from 'vitest';
import { createTestDatabase } from '../servers/test-database.ts';
import { addEffect, Counted, EFFECT_TABLE, type Effect } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';
import { gate, StoreScene } from './store-first-kit.ts';

const KEYS = ['a', 'b', 'c'];

it('handles what it has stored in a database of its own, once and in the order of keys, and leaves nothing behind', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  await using other = await createTestDatabase();
  await other.pool.query(EFFECT_TABLE);
  const consumer = stream
    .consumer({ delivery: 'store-first', database: other.pool })
    .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
  await stream.publish(...counts(KEYS, 10));
  await consumer.start();
  const effects = async (): Promise<Effect[]> =>
    (await other.pool.query<Effect>('select key, n, member from effect order by id')).rows;
  await until(async () => (await effects()).length >= 30);
  await stream.publish(...counts(KEYS, 10, 11));
  await until(async () => (await effects()).length >= 60);
  await until(async () => (await other.pool.query('select from tailrace.inbox')).rowCount === 0);
  await consumer.stop();
  const numbers = Object.groupBy(await effects(), ({ key }) => key);
  for (const key of KEYS) expect(numbers[key]?.map(({ n }) => n)).toEqual(range(20));
  expect(consumer.status()).toMatchObject({ handled: 60, duplicates: 0, stored: 0, problem: undefined });
  const [places] = (
    await other.pool.query(
      'select sum(next_offset)::int as next, sum(stored_to)::int as stored from tailrace.consumer_cursor',
    )
  ).rows;
  expect(places).toEqual({ next: 60, stored: 60 });
});

it('goes on with what is stored when retention has removed it from the log, and when the log is gone', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], 50));
  const { open, pass, isReached } = gate();
  const consumer = scene.member(pass);
  await consumer.start();
  await isReached;
  await scene.untilStored(50);
  expect(consumer.status().stored).toBe(50);
  await scene.source.removeBefore({ topic: 'numbers', partition: 0, offset: 50n });
  scene.line.cut();
  open();
  await scene.untilEffects(50);
  expect(await scene.numbers()).toEqual({ a: range(50) });
  expect(consumer.status()).toMatchObject({ handled: 50, lost: 0 });
});

it('starts without its log, and receives from it when it is there again', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], 20));
  const { pass, isReached } = gate();
  const former = scene.member(pass, { drainTimeoutMs: 0 });
  await former.start();
  await isReached;
  await scene.untilStored(20);
  await former.stop();
  await scene.source.removeBefore({ topic: 'numbers', partition: 0, offset: 15n });
  scene.line.cut();

  const heir = scene.member();
  await heir.start();
  await scene.untilEffects(20);
  scene.line.leadTo(scene.source);
  await scene.source.publish(counts(['a'], 10, 21));
  await scene.untilEffects(30);
  await heir.stop();
  expect(await scene.numbers()).toEqual({ a: range(30) });
});

it('a member with another delivery handles what is stored before it reads the log on', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], 20));
  const { pass, isReached } = gate();
  const former = scene.member(pass, { drainTimeoutMs: 0 });
  await former.start();
  await isReached;
  await scene.untilStored(20);
  await former.stop();
  await scene.source.publish(counts(['a'], 5, 21));
  await scene.source.removeBefore({ topic: 'numbers', partition: 0, offset: 20n });

  const heir = scene.member(undefined, { delivery: 'effectively-once' });
  await heir.start();
  await scene.untilEffects(25);
  await until(async () => (await scene.count('tailrace.inbox')) === 0);
  await heir.stop();
  expect(await scene.numbers()).toEqual({ a: range(25) });
  expect(heir.status()).toMatchObject({ handled: 25, lost: 0, problem: undefined });
});

it('receives no more than there is room for, and goes on when there is', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], 100));
  const { open, pass, isReached } = gate();
  const most: number[] = [];
  const consumer = scene.member(
    async (count, context) => {
      most.push(consumer.status().stored);
      await pass(count, context);
    },
    { inbox: { maxRecords: 10 } },
  );
  await consumer.start();
  await isReached;
  await scene.source.publish(counts(['a'], 20, 101)); // tells the receiver of more, for which there is no room
  await until(() => consumer.status().stored >= 5);
  expect(await scene.count('tailrace.inbox')).toBeLessThanOrEqual(10);
  open();
  await scene.untilEffects(120);
  expect(await scene.numbers()).toEqual({ a: range(120) });
  expect(Math.max(...most)).toBeLessThanOrEqual(10);
  await consumer.stop();
});

it('receives by bytes, a large record alone', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], 30));
  const consumer = scene.member(undefined, { inbox: { maxBytes: 1 } });
  await consumer.start();
  await scene.untilEffects(30);
  expect(await scene.numbers()).toEqual({ a: range(30) });
});

it('says what retention has removed before it was stored, and goes on where the options say', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], 10));
  const first = scene.member();
  await first.start();
  await scene.untilEffects(10);
  await first.stop();
  await scene.source.publish(counts(['a'], 10, 11));
  await scene.source.removeBefore({ topic: 'numbers', partition: 0, offset: 15n });

  const halted = scene.member();
  await halted.start();
  await until(() => halted.status().problem !== undefined);
  expect(halted.status().problem).toMatch(/15/);
  await halted.stop();

  const second = scene.member(undefined, { onOutOfRange: 'earliest' });
  await second.start();
  await scene.untilEffects(15);
  await until(
    async () => (await scene.rows('select from tailrace.consumer_cursor where next_offset = 20')).length === 1,
  );
  expect(second.status()).toMatchObject({ lost: 5, problem: undefined });
  expect(await scene.numbers()).toEqual({ a: [...range(10), ...range(20).slice(15)] });
});

it('a gap behind all that is stored counts as finished', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], 10));
  const { open, pass, isReached } = gate();
  const member = scene.member(pass, { onOutOfRange: 'latest', inbox: { maxRecords: 10 } });
  await member.start();
  await isReached;
  await scene.untilStored(5);
  await scene.source.removeBefore({ topic: 'numbers', partition: 0, offset: 9n });
  open();
  await scene.untilEffects(5);
  await until(
    async () => (await scene.rows('select from tailrace.consumer_cursor where next_offset = 10')).length === 1,
  );
  await scene.source.publish(counts(['a'], 1, 11));
  await scene.untilEffects(6);
  expect((await scene.numbers())['a']).toEqual([...range(5), 11]);
  expect(member.status().lost).toBe(5);
});

it('sets aside what fails, from the inbox, and later records of its key line up behind it', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a', 'b'], 5));
  let isBad = true;
  const consumer = scene.member(
    ({ key, n }) => {
      if (key === 'a' && n === 2 && isBad) throw new Error('not yet');
    },
    { retries: { attempts: 2, backoff: { initialMs: 1 }, delayed: { delaysMs: [3_600_000] } } },
  );
  await consumer.start();
  await scene.untilEffects(6);
  await until(async () => (await scene.count('tailrace.parked_message')) === 4);
  await until(async () => (await scene.count('tailrace.inbox')) === 0);
  isBad = false;
  await scene.rows(
    `update tailrace.parked_message set due_at = now(), revision = revision + 1 where due_at is not null`,
  );
  await scene.rows(`select pg_notify('tailrace_consumer', '{"group": "counting", "parked": true}')`);
  await scene.untilEffects(10);
  expect(await scene.numbers()).toEqual({ a: range(5), b: range(5) });
});
