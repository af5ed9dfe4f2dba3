import { describe, expect, it } from 'vitest';
import { deleteGroup, type Consumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/message/definition.ts';
import { addEffect, type Count, Counted } from './counted.ts';
import { counts, listeningLogger, range, Stream, until } from './kit.ts';
import { openPool } from '../servers/pool.ts';

const keys = Array.from({ length: 16 }, (_, at) => `key ${at}`);

/** Which partitions a member owns. */
const owned = (consumer: Consumer): number[] =>
  consumer
    .status()
    .assignments.filter(({ state }) => state === 'owned')
    .map(({ partition }) => partition)
    .sort((a, b) => a - b);

const owners = (stream: Stream): Promise<{ partition: number; owner: string | null; epoch: string }[]> =>
  stream.rows('select partition, owner, epoch from tailrace.consumer_cursor order by partition');

/** A member that writes its name beside each effect. */
const member = (stream: Stream, memberId: string): Consumer =>
  stream.consumer({ memberId }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, memberId));

describe('members of a group', () => {
  it('share the partitions, and one that joins or leaves moves only what it must', async () => {
    await using stream = await Stream.open({ partitions: 6 });
    await stream.publish(...counts(keys, 1));
    const [one, two, three] = ['one', 'two', 'three'].map((name) => member(stream, name)) as [
      Consumer,
      Consumer,
      Consumer,
    ];
    await one.start();
    expect(owned(one)).toEqual([0, 1, 2, 3, 4, 5]);

    await two.start();
    await until(() => owned(one).length === 3 && owned(two).length === 3);
    const before = await owners(stream);
    await three.start();
    await until(() => owned(one).length === 2 && owned(two).length === 2 && owned(three).length === 2);
    const after = await owners(stream);
    expect(after.filter(({ owner }, at) => owner !== before[at]?.owner).map(({ owner }) => owner)).toEqual([
      'three',
      'three',
    ]);
    expect(after.filter(({ epoch }, at) => epoch !== before[at]?.epoch)).toHaveLength(2);

    const [keptByOne, keptByTwo] = [owned(one), owned(two)];
    await three.stop();
    await until(() => owned(one).length === 3 && owned(two).length === 3);
    expect(owned(one)).toEqual(expect.arrayContaining(keptByOne));
    expect(owned(two)).toEqual(expect.arrayContaining(keptByTwo));
    expect(await stream.rows('select member_id from tailrace.consumer_member order by 1')).toEqual([
      { member_id: 'one' },
      { member_id: 'two' },
    ]);
  });

  it('make every effect once and in order while members come and go', async () => {
    await using stream = await Stream.open({ partitions: 8 });
    const total = 40;
    const lasting = member(stream, 'lasting');
    await lasting.start();
    let published = 0;
    const publishSome = async (): Promise<void> => {
      await stream.publish(...counts(keys, 5, published + 1));
      published += 5;
    };
    while (published < total) {
      const passing = member(stream, `passing ${published}`);
      await publishSome();
      await passing.start();
      await until(() => owned(passing).length > 0);
      await publishSome();
      if (published === total / 2) await until(() => passing.status().handled > 0); // the others may have had no time
      await passing.stop();
    }
    await stream.untilEffects(total * keys.length);
    expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(total)])));
    expect(new Set((await stream.effects()).map(({ member }) => member)).size).toBeGreaterThan(1);
  });

  it('hand a partition over only when what runs of it has ended, and pause nothing else', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    await stream.publish(...counts(keys, 1));
    const gate = Promise.withResolvers<undefined>();
    let begun = 0;
    const one = stream.consumer({ memberId: 'one', concurrency: 16 }).on(Counted, async ({ payload }, { tx }) => {
      begun += 1;
      await gate.promise;
      await addEffect(tx, payload, 'one');
    });
    await one.start();
    await until(() => begun === keys.length);
    const two = member(stream, 'two');
    await two.start();
    await until(() => one.status().assignments.some(({ state }) => state === 'revoking'));
    expect(owned(two)).toEqual([]);
    expect(owned(one)).toHaveLength(1);
    gate.resolve(undefined);
    await until(() => owned(two).length === 1);
    await stream.publish(...counts(keys, 1, 2));
    await stream.untilEffects(2 * keys.length);
    expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, [1, 2]])));
    expect(two.status().duplicates).toBe(0);
  });

  it('let go of a partition whose handler does not end, and undo what it has done', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    await stream.publish(...counts(keys, 1));
    let begun = 0;
    const one = stream
      .consumer({ memberId: 'one', concurrency: 16, drainTimeoutMs: 10 })
      .on(Counted, async ({ payload }, { tx }) => {
        await addEffect(tx, payload, 'one');
        begun += 1;
        await new Promise(() => undefined); // never
      });
    await one.start();
    await until(() => begun === keys.length);
    const two = member(stream, 'two');
    await two.start();
    await until(() => two.status().handled > 0);
    await one.stop();
    await stream.untilEffects(keys.length);
    expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, [1]])));
    expect(new Set((await stream.effects()).map(({ member }) => member))).toEqual(new Set(['two']));
  });

  it('handle only topics that they have handlers for', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    const Lettered = defineEvent<Count>('Lettered', { topic: 'letters', key: ({ key }) => key });
    await stream.publish(...counts(keys, 1), ...keys.map((key) => Lettered({ key, n: 2 })));
    const numbers = member(stream, 'numbers');
    const letters = stream
      .consumer({ memberId: 'letters' })
      .on(Lettered, ({ payload }, { tx }) => addEffect(tx, payload, 'letters'));
    await numbers.start();
    await letters.start();
    await stream.untilEffects(2 * keys.length);
    for (const { n, member } of await stream.effects()) expect(member).toBe(n === 1 ? 'numbers' : 'letters');
  });
});

describe('a member that has lost a partition', () => {
  it('cannot commit: the handler is undone and the next owner does it once', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 3));
    const logger = listeningLogger();
    const attempts: string[] = [];
    const zombie = stream.consumer({ logger }).on(Counted, async ({ payload }, { tx }) => {
      attempts.push(`${payload.n}`);
      await addEffect(tx, payload, `attempt ${attempts.length}`);
      if (attempts.length === 2) await stream.pool.query('update tailrace.consumer_cursor set epoch = epoch + 1');
    });
    await zombie.start();
    await stream.untilEffects(3);
    expect(attempts).toEqual(['1', '2', '2', '3']);
    expect(await stream.effects()).toEqual([
      { key: 'a', n: 1, member: 'attempt 1' },
      { key: 'a', n: 2, member: 'attempt 3' },
      { key: 'a', n: 3, member: 'attempt 4' },
    ]);
    expect(zombie.status()).toMatchObject({ retried: 0, dead: 0 });
    expect(logger.lines.map(({ fields }) => fields)).toContainEqual(
      expect.objectContaining({ code: 'ASSIGNMENT_LOST' }),
    );
  });

  it('tells its running handlers, and cannot commit although they go on', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 1));
    const isRunning = Promise.withResolvers<undefined>();
    const mayEnd = Promise.withResolvers<undefined>();
    const zombie = stream.consumer({ memberId: 'zombie' }).on(Counted, async ({ payload }, { tx, signal }) => {
      await addEffect(tx, payload, 'zombie');
      isRunning.resolve(undefined);
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
      await mayEnd.promise;
    });
    await zombie.start();
    await isRunning.promise;
    await stream.pool.query(`update tailrace.consumer_cursor set owner = 'thief', wanted = 'thief', epoch = epoch + 1;
      insert into tailrace.consumer_member values ('counting', 'thief', '{numbers}', now() + interval '1 hour')`);
    await until(() => zombie.status().assignments.length === 0);
    mayEnd.resolve(undefined);
    await until(() => zombie.status().running === 0);
    expect(await stream.effects()).toEqual([]);
    expect(await stream.rows('select 1 from tailrace.processed_message')).toEqual([]);
  });

  it('stores no place in it', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 3));
    const consumer = stream
      .consumer({ cursorIntervalMs: 3_600_000 })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await until(() => consumer.status().handled === 3);
    await stream.pool
      .query(`insert into tailrace.consumer_member values ('counting', 'thief', '{numbers}', now() + interval '1 hour');
      update tailrace.consumer_cursor set owner = 'thief', wanted = 'thief', epoch = epoch + 1`);
    await consumer.stop();
    expect(await stream.rows('select next_offset, owner from tailrace.consumer_cursor')).toEqual([
      { next_offset: '0', owner: 'thief' },
    ]);
  });

  it('stops everything when its lease runs out unheard, and goes on when it is heard again', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 1));
    const isAborted = Promise.withResolvers<undefined>();
    let attempts = 0;
    const consumer = stream
      .consumer({ leaseMs: 1_500, heartbeatMs: 50, handlerIdleMs: 600_000 })
      .on(Counted, async ({ payload }, { tx, signal }) => {
        attempts += 1;
        await addEffect(tx, payload, `attempt ${attempts}`);
        if (attempts > 1) return;
        const lock = await stream.pool.connect();
        await lock.query(`begin; select from tailrace.consumer_group for update`); // no heartbeat gets through
        if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
        isAborted.resolve(undefined);
        await lock.query('commit');
        lock.release();
      });
    await consumer.start();
    await isAborted.promise;
    await until(() => consumer.status().handled === 1);
    // On a slow machine the lease may run out more often than it was made to.
    expect(attempts).toBeGreaterThan(1);
    expect(await stream.effects()).toEqual([{ key: 'a', n: 1, member: `attempt ${attempts}` }]);
    const [cursor] = await owners(stream);
    expect(Number(cursor?.epoch)).toBeGreaterThan(1);
  });

  it('comes back after all its connections were cut, without losing its partitions', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    await stream.publish(...counts(keys, 1));
    const pool = openPool({ connectionString: stream.database.connectionString, application_name: 'cut me' });
    // Without a listener: idle clients are cut too, and the consumer must not let that end the process.
    const consumer = stream.consumer({ database: pool }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await stream.untilEffects(keys.length);
    const before = await owners(stream);
    const [cut] = await stream.rows<{ clients: number; expiry: Date }>(
      `select count(*) filter (where pg_terminate_backend(pid))::int as clients,
         (select expires_at from tailrace.consumer_member) as expiry
       from pg_stat_activity where application_name = 'cut me'`,
    );
    expect(cut!.clients).toBeGreaterThan(0);
    await until(async () => {
      const [member] = await stream.rows<{ expiry: Date }>('select expires_at as expiry from tailrace.consumer_member');
      return member!.expiry > cut!.expiry;
    });
    expect(await owners(stream)).toEqual(before);
    await stream.publish(...counts(keys, 1, 2));
    await stream.untilEffects(2 * keys.length);
    await consumer.stop();
    await pool.end();
  });
});

describe('where a group begins', () => {
  const begin = async (stream: Stream, startFrom: 'earliest' | 'latest' | Date): Promise<Consumer> => {
    const consumer = stream.consumer({ startFrom }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    return consumer;
  };

  it('at the first records', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(keys, 2));
    await begin(stream, 'earliest');
    await stream.untilEffects(2 * keys.length);
    expect((await stream.numbers())['key 0']).toEqual([1, 2]);
  });

  it('at the end', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(keys, 2));
    await begin(stream, 'latest');
    await stream.publish(...counts(keys, 1, 3));
    await stream.untilEffects(keys.length);
    expect((await stream.numbers())['key 0']).toEqual([3]);
  });

  it('at a time', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(keys, 1));
    const [row] = await stream.rows<{ now: Date }>(
      `select date_trunc('ms', clock_timestamp()) + interval '1 ms' as now`,
    );
    await until(async () => (await stream.rows('select 1 where clock_timestamp() > $1', [row!.now])).length > 0);
    await stream.publish(...counts(keys, 2, 2));
    await begin(stream, row!.now);
    await stream.untilEffects(2 * keys.length);
    expect((await stream.numbers())['key 0']).toEqual([2, 3]);
  });

  it('at the first record of a topic that appears later, even if told to begin at the end', async () => {
    await using stream = await Stream.open();
    await begin(stream, 'latest');
    await stream.publish(...counts(keys, 2));
    await stream.untilEffects(2 * keys.length);
    expect((await stream.numbers())['key 0']).toEqual([1, 2]);
  });

  it('at the first record of a topic that appears while no member runs', async () => {
    await using stream = await Stream.open();
    await (await begin(stream, 'latest')).stop();
    await stream.publish(...counts(keys, 2));
    await begin(stream, 'latest');
    await stream.untilEffects(2 * keys.length);
    expect((await stream.numbers())['key 0']).toEqual([1, 2]);
  });

  it('where it stopped, whatever a later member says', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(keys, 1));
    const first = await begin(stream, 'earliest');
    await stream.untilEffects(keys.length);
    await first.stop();
    await stream.publish(...counts(keys, 1, 2));
    const second = await begin(stream, 'latest');
    await stream.untilEffects(2 * keys.length);
    expect((await stream.numbers())['key 0']).toEqual([1, 2]);
    expect(second.status().duplicates).toBe(0);
  });
});

describe('stop', () => {
  it('lets running handlers end, begins no others, and stores its place', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 3));
    const bothRun = Promise.withResolvers<undefined>();
    const mayEnd = Promise.withResolvers<undefined>();
    let begun = 0;
    const consumer = stream.consumer().on(Counted, async ({ payload }, { tx, signal }) => {
      begun += 1;
      if (begun === 2) bothRun.resolve(undefined);
      await mayEnd.promise;
      expect(signal.aborted).toBe(false);
      await addEffect(tx, payload);
    });
    await consumer.start();
    await bothRun.promise;
    const stopped = consumer.stop();
    const again = consumer.stop();
    expect(consumer.status().state).toBe('stopping');
    mayEnd.resolve(undefined);
    await Promise.all([stopped, again]);
    expect(begun).toBe(2);
    expect(await stream.numbers()).toEqual({ a: [1], b: [1] });
    expect(await stream.rows('select next_offset, owner from tailrace.consumer_cursor')).toEqual([
      { next_offset: '2', owner: null },
    ]);
    expect(await stream.rows('select 1 from tailrace.consumer_member')).toEqual([]);
  });

  it('asks handlers that go on to end, and undoes what they have done when they do not', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 1));
    const isRunning = Promise.withResolvers<undefined>();
    const isAsked = Promise.withResolvers<undefined>();
    const consumer = stream.consumer({ drainTimeoutMs: 10 }).on(Counted, async ({ payload }, { tx, signal }) => {
      await addEffect(tx, payload);
      signal.addEventListener('abort', () => isAsked.resolve(undefined), { once: true });
      isRunning.resolve(undefined);
      await new Promise(() => undefined); // never
    });
    await consumer.start();
    await isRunning.promise;
    await consumer.stop();
    await isAsked.promise;
    expect(consumer.status().state).toBe('stopped');
    expect(await stream.effects()).toEqual([]);
    expect(await stream.rows('select next_offset, owner from tailrace.consumer_cursor')).toEqual([
      { next_offset: '0', owner: null },
    ]);
  });

  it('gives every connection back', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(keys, 1));
    const consumer = member(stream, 'one');
    await consumer.start();
    await stream.untilEffects(keys.length);
    await consumer.stop();
    expect(stream.pool.totalCount - stream.pool.idleCount).toBe(0);
  });

  it('comes in the middle of a start', async () => {
    await using stream = await Stream.open();
    const consumer = member(stream, 'one');
    const started = consumer.start();
    await consumer.stop();
    await started;
    expect(consumer.status().state).toBe('stopped');
    expect(await stream.rows('select 1 from tailrace.consumer_member')).toEqual([]);
  });
});

it('a group that was deleted and is made anew begins above all epochs of the former one', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  await stream.publish(...counts(['k'], 1));
  const epoch = async (): Promise<number> => {
    const [row] = await stream.rows<{ epoch: number }>('select epoch::int from tailrace.consumer_cursor');
    return row!.epoch;
  };
  let before = 0;
  for (const n of [1, 2, 3]) {
    const member = stream.consumer().on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await member.start();
    await stream.untilEffects(n);
    const now = await epoch();
    expect(now).toBeGreaterThan(before);
    before = now;
    await member.stop();
    expect(await deleteGroup({ database: stream.pool, group: 'counting' })).toMatchObject({ places: 1 });
  }
});
