import { randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { memoryLog } from '../../src/broker/memory/index.ts';
import {
  cloneGroup,
  cutOver,
  deleteGroup,
  seekGroup,
  type Consumer,
  type SeekTarget,
} from '../../src/consumer/index.ts';
import { forgetTopic } from '../../src/consumer/forget-topic.ts';
import { InboxTable } from '../../src/consumer/inbox-table.ts';
import { counts, listeningLogger, range, until } from './kit.ts';
import { gate, StoreScene } from './store-first-kit.ts';

const seek = (scene: StoreScene, to: SeekTarget): ReturnType<typeof seekGroup> =>
  seekGroup({ log: scene.line, database: scene.pool, group: 'counting', topic: 'numbers', to });

const forgetBefore = (scene: StoreScene, offset: bigint): Promise<void> =>
  scene.source.removeBefore({ topic: 'numbers', partition: 0, offset });

const window = (scene: StoreScene): Promise<object[]> =>
  scene.rows(
    `select next_offset::int as place, stored_from::int, stored_to::int, (select count(*)::int from tailrace.inbox) as rows
      from tailrace.consumer_cursor`,
  );

/** A group that has stored so many messages of the key a, of which the log has none any more, and has handled none of them. */
async function storedGroup(count: number): Promise<StoreScene> {
  const scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], count));
  const { pass, isReached } = gate();
  const member = scene.member(pass, { drainTimeoutMs: 0 });
  await member.start();
  await isReached;
  await scene.untilStored(count);
  await member.stop();
  await forgetBefore(scene, BigInt(count));
  return scene;
}

describe('a seek of a group that has stored records', () => {
  it('moves within them, though the log has lost them, and handles them again', async () => {
    await using scene = await storedGroup(20);
    expect(await seek(scene, { offset: 10n })).toEqual([{ partition: 0, from: 0n, to: 10n }]);
    expect(await window(scene)).toEqual([{ place: 10, stored_from: 0, stored_to: 20, rows: 20 }]);
    expect(await seek(scene, { offset: 5n })).toEqual([{ partition: 0, from: 10n, to: 5n }]);
    await scene.member().start();
    await scene.untilEffects(15);
    expect(await scene.numbers()).toEqual({ a: range(20).slice(5) });
    await expect(seek(scene, { offset: 21n })).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' });
  });

  it('to the earliest goes to the first that is stored, and to the latest behind all', async () => {
    await using scene = await storedGroup(20);
    await seek(scene, 'latest');
    expect(await window(scene)).toEqual([{ place: 20, stored_from: 0, stored_to: 20, rows: 20 }]);
    expect(await seek(scene, 'earliest')).toEqual([{ partition: 0, from: 20n, to: 0n }]);
    await scene.member().start();
    await scene.untilEffects(20);
    expect(await scene.numbers()).toEqual({ a: range(20) });
  });

  it('to before them or behind them gives them up, and reads the log from there', async () => {
    await using scene = await StoreScene.open();
    await scene.source.publish(counts(['a'], 30));
    const first = scene.member();
    await first.start();
    await scene.untilEffects(30);
    await until(async () => (await scene.count('tailrace.inbox')) === 0);
    await seek(scene, { offset: 25n });
    expect(await window(scene)).toEqual([{ place: 25, stored_from: 25, stored_to: 25, rows: 0 }]);
    await scene.untilEffects(35);
    await first.stop();
    await scene.source.publish(counts(['a'], 10, 31));
    await seek(scene, { offset: 38n });
    await scene.member().start();
    await scene.untilEffects(37);
    expect(await scene.numbers()).toEqual({ a: [...range(30), ...range(30).slice(25), 39, 40] });
  });
});

describe('what is stored', () => {
  it('is copied with a group that is cloned', async () => {
    await using scene = await storedGroup(20);
    await seek(scene, { offset: 5n });
    await cloneGroup({ database: scene.pool, from: 'counting', to: 'twin' });
    await scene.member(undefined, { group: 'twin' }).start();
    await scene.untilEffects(15);
    expect(await scene.numbers()).toEqual({ a: range(20).slice(5) });
    expect(await scene.rows('select from tailrace.inbox where group_name = $1', ['counting'])).toHaveLength(20);
  });

  it('goes over to the group that takes over, and nothing is handled twice', async () => {
    await using scene = await StoreScene.open();
    await scene.source.publish(counts(['a', 'b'], 10));
    const held = gate();
    const old = scene.member(
      async (count, context) => {
        if (count.key === 'a') await held.pass(count, context);
      },
      { drainTimeoutMs: 0, memberId: 'old' },
    );
    await old.start();
    await scene.untilEffects(10); // all of b, beyond the stored place
    await scene.untilStored(20);
    await forgetBefore(scene, 20n);
    const result = await cutOver({
      log: scene.line,
      database: scene.pool,
      from: 'counting',
      to: 'next',
      awaitMembers: false,
    });
    expect(result.handled).toBe(10);
    await scene.member(undefined, { group: 'next', memberId: 'next' }).start();
    await until(async () => (await scene.rows(`select from effect where member = 'next'`)).length >= 10);
    const effects = await scene.rows<{ key: string; n: number; member: string }>(
      `select key, n, member from effect order by id`,
    );
    expect(effects.filter(({ key }) => key === 'a').map(({ n, member }) => `${n} ${member}`)).toEqual(
      range(10).map((n) => `${n} next`),
    );
    expect(effects.filter(({ key }) => key === 'b').map(({ n, member }) => `${n} ${member}`)).toEqual(
      range(10).map((n) => `${n} old`),
    );
  });

  it('goes with its group', async () => {
    await using scene = await storedGroup(20);
    expect(await deleteGroup({ database: scene.pool, group: 'counting' })).toMatchObject({ places: 1, stored: 20 });
    expect(await scene.count('tailrace.inbox')).toBe(0);
  });

  it('goes with its topic', async () => {
    await using scene = await storedGroup(20);
    const client = await scene.pool.connect();
    try {
      await client.query('begin');
      await forgetTopic(client, 'tailrace', 'numbers', false);
      await client.query('commit');
    } finally {
      client.release();
    }
    expect(await scene.count('tailrace.inbox')).toBe(0);
  });

  it('is not added to by a former owner, nor at another place than behind it', async () => {
    await using scene = await storedGroup(20);
    await scene.source.publish(counts(['a'], 3, 21));
    const records = await scene.source.fetch([{ topic: 'numbers', partition: 0, offset: 20n }]);
    const sizes = records.map(() => 1);
    const table = new InboxTable('tailrace', 'counting');
    const [cursor] = await scene.rows<{ epoch: string }>('select epoch::text from tailrace.consumer_cursor');
    const place = { topic: 'numbers', partition: 0, epoch: BigInt(cursor?.epoch ?? 0) };
    const client = await scene.pool.connect();
    try {
      const former = { ...place, epoch: place.epoch - 1n };
      await expect(table.store(client, former, 20n, records, sizes)).rejects.toMatchObject({ code: 'TR001' });
      expect(await table.store(client, place, 19n, records, sizes)).toBe(false);
      expect(await table.store(client, place, 20n, records, sizes)).toBe(true);
      expect(await table.amount(client, place)).toMatchObject({ to: 23n, records: 23 });
    } finally {
      client.release();
    }
    expect(await scene.count('tailrace.inbox')).toBe(23);
  });

  it('is what the log gave, to the byte', async () => {
    await using scene = await storedGroup(1);
    const common = {
      topic: 'numbers',
      partition: 0,
      kind: 'event',
      type: 'T',
      occurredAt: new Date(1_700_000_000_123),
    } as const;
    const records = [
      {
        ...common,
        offset: 1n,
        messageId: '019a0000-0000-7000-8000-000000000001',
        key: null,
        headers: {},
        payload: '{"a": 1.0 }',
        payloadBytes: null,
      },
      {
        ...common,
        offset: 4n, // of a compacted topic
        messageId: '019a0000-0000-7000-8000-000000000002',
        key: 'nul \0 and ☃',
        headers: { name: 'value \0 ☃' },
        payload: null,
        payloadBytes: Buffer.from([0, 255, 1]),
        expiresAt: new Date(253_402_300_799_999),
        deliverAt: new Date(1),
      },
    ];
    const table = new InboxTable('tailrace', 'counting');
    const [cursor] = await scene.rows<{ epoch: string }>('select epoch::text from tailrace.consumer_cursor');
    const place = { topic: 'numbers', partition: 0, epoch: BigInt(cursor?.epoch ?? 0) };
    const client = await scene.pool.connect();
    try {
      expect(await table.store(client, place, 1n, records, [1, 1])).toBe(true);
      const range = { from: 1n, below: 100n, maxRecords: 10, maxBytes: 1_000 };
      expect(await table.read(client, place, range)).toEqual(records);
      expect(await table.read(client, place, { ...range, maxBytes: 1 })).toHaveLength(1);
      expect(await table.read(client, place, { ...range, below: 4n })).toHaveLength(1);
    } finally {
      client.release();
    }
  });
});

it('removes what a log that lost its end gives out anew, and handles what stands there now', async () => {
  await using scene = await StoreScene.open();
  await scene.source.publish(counts(['a'], 20));
  const records = await scene.source.fetch([{ topic: 'numbers', partition: 0, offset: 0n }]);
  const { open, pass, isReached } = gate();
  const logger = listeningLogger();
  const member = scene.member(pass, { logger });
  await member.start();
  await isReached;
  await scene.untilStored(20);
  // Another history: it has the first twelve, and others after them.
  await using standby = await StoreScene.open();
  await standby.source.createTopic('numbers', 1);
  await standby.source.append({ topic: 'numbers', partition: 0, offset: 0n, records: records.slice(0, 12) });
  await standby.source.publish(counts(['b'], 20));
  scene.line.leadTo(standby.source);
  await until(() => logger.lines.some(({ message }) => message.startsWith('The log has lost records')));
  open();
  await scene.untilEffects(32);
  await member.stop();
  expect(await scene.numbers()).toEqual({ a: range(12), b: range(20) });
  expect(logger.lines.find(({ message }) => message.startsWith('The log has lost records'))?.fields).toMatchObject({
    fork: '12',
    storedTo: '20',
    removed: 8,
  });
});

it('keeps what is stored where a log that has changed still gives it', async () => {
  await using scene = await storedGroup(10);
  await scene.source.publish(counts(['a'], 10, 11));
  const { open, pass, isReached } = gate();
  const member = scene.member(pass);
  await member.start();
  await isReached;
  await scene.untilStored(20);
  scene.line.leadTo(scene.source);
  await until(() => member.status().assignments.some(({ epoch }) => epoch > 2n));
  open();
  await scene.untilEffects(20);
  expect(await scene.numbers()).toEqual({ a: range(20) });
});

it('a topic that the log does not have contradicts nothing that is stored', async () => {
  await using scene = await storedGroup(10);
  scene.line.leadTo(memoryLog());
  await scene.member().start();
  await scene.untilEffects(10);
  expect(await scene.numbers()).toEqual({ a: range(10) });
});

/** Numbers from a seed, all different: mulberry32. */
function numbersFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

it('whoever comes and goes, and whatever retention removes of what is stored: each message once and in order', async () => {
  const seed = Number(process.env['TAILRACE_TEST_SEED'] ?? randomInt(2 ** 31));
  const random = numbersFrom(seed);
  await using scene = await StoreScene.open({ partitions: 3 });
  const keys = ['a', 'b', 'c', 'd', 'e'];
  const members: Consumer[] = [];
  let published = 0;
  const publish = async (): Promise<void> => {
    const each = 1 + random(20);
    await scene.source.publish(counts(keys, each, published + 1));
    published += each;
  };
  const join = async (): Promise<void> => {
    const member = scene.member(
      () => {
        if (random(20) === 0) throw new Error('now and then');
      },
      {
        inbox: { maxRecords: 1 + random(60) },
        drainTimeoutMs: random(2) * 1_000,
        retries: { attempts: 1_000, backoff: { initialMs: 1, maxMs: 2 } },
      },
    );
    members.push(member);
    await member.start();
  };
  const forget = async (): Promise<void> => {
    const rows = await scene.rows<{ partition: number; until: string }>(
      'select partition, greatest(next_offset, stored_to)::text as until from tailrace.consumer_cursor',
    );
    for (const { partition, until: offset } of rows) {
      await scene.source.removeBefore({ topic: 'numbers', partition, offset: BigInt(offset) });
    }
  };
  await publish();
  await join();
  for (let step = 0; step < 40; step += 1) {
    const choice = random(10);
    if (choice < 4) await publish();
    else if (choice < 6 && members.length < 4) await join();
    else if (choice === 6 && members.length > 1) await members.splice(random(members.length), 1)[0]?.stop();
    else if (choice === 7) await forget();
    else await scene.untilEffects(random(published * keys.length));
  }
  await scene.untilEffects(published * keys.length);
  for (const member of members) await member.stop();
  const expected = Object.fromEntries(keys.map((key) => [key, range(published)]));
  expect(await scene.numbers(), `seed ${seed}: TAILRACE_TEST_SEED=${seed}`).toEqual(expected);
});
