import { expect, it } from 'vitest';
import { seekGroup, type Consumer, type SeekTarget } from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

const seek = (stream: Stream, to: SeekTarget, dryRun = false): ReturnType<typeof seekGroup> =>
  seekGroup({ log: stream.log, database: stream.pool, group: 'counting', topic: 'numbers', to, dryRun });

const isStored = (stream: Stream, place: number): Promise<void> =>
  until(async () => {
    const rows = await stream.rows('select from tailrace.consumer_cursor where next_offset = $1', [place]);
    return rows.length === 1;
  });

it('a seek while members run undoes what is under way, and replays once', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  await stream.publish(...counts(['a'], 5));
  const replays: [number, boolean][] = [];
  const isRunning = Promise.withResolvers<undefined>();
  const mayEnd = Promise.withResolvers<undefined>();
  const consumer = stream.consumer().on(Counted, async ({ payload: { key, n } }, { tx, isReplay }) => {
    if (n === 6 && !isReplay && replays.length === 5) {
      isRunning.resolve(undefined);
      await mayEnd.promise; // what it does then is of before the seek
    }
    await addEffect(tx, { key, n });
    replays.push([n, isReplay]);
  });
  await consumer.start();
  await stream.untilEffects(5);
  await isStored(stream, 5);
  await stream.publish(...counts(['a'], 1, 6));
  await isRunning.promise;
  expect(await seek(stream, { by: -3n }, true)).toEqual([{ partition: 0, from: 5n, to: 2n }]);
  expect(await seek(stream, { by: -3n })).toEqual([{ partition: 0, from: 5n, to: 2n }]);
  await until(() => consumer.status().assignments.every(({ epoch }) => epoch > 2n));
  mayEnd.resolve(undefined);
  await stream.untilEffects(9);
  await stream.publish(...counts(['a'], 1, 7));
  await stream.untilEffects(10);
  expect((await stream.numbers())['a']).toEqual([...range(5), 3, 4, 5, 6, 7]);
  expect(replays.map(([n, isReplay]) => `${n}${isReplay ? ' again' : ''}`)).toEqual([
    '1',
    '2',
    '3',
    '4',
    '5',
    '3 again',
    '4 again',
    '5 again',
    '6',
    '7',
  ]);
});

it('what was handled beyond the stored place is a replay too, and what was not is none; a handler may skip replays', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  await stream.publish(...counts(['stuck', 'free'], 3));
  const gate = Promise.withResolvers<undefined>();
  const seen: string[] = [];
  const consumer = stream.consumer({ concurrency: 8, drainTimeoutMs: 0 }).on(
    Counted,
    async ({ payload }, { tx, isReplay }) => {
      if (payload.key === 'stuck') await gate.promise;
      await addEffect(tx, payload);
      seen.push(`${payload.key} ${payload.n} ${isReplay}`);
    },
    { onReplay: 'skip' },
  );
  await consumer.start();
  await stream.untilEffects(3);
  expect(await stream.numbers()).toEqual({ free: range(3) });
  await seek(stream, 'earliest'); // it is there already: nothing comes again
  await seek(stream, { by: 0n });
  await stream.pool.query(`update tailrace.consumer_cursor set next_offset = 1`); // 'stuck' 1 was skipped by hand
  expect(await seek(stream, 'earliest')).toEqual([{ partition: 0, from: 1n, to: 0n }]);
  await until(async () => {
    const rows = await stream.rows<{ epoch: string }>(
      'select epoch from tailrace.consumer_cursor where owner is not null',
    );
    return `${consumer.status().assignments[0]?.epoch}` === rows[0]?.epoch;
  }); // what it had under way before is cut off
  gate.resolve(undefined);
  await isStored(stream, 6);
  expect(await stream.numbers()).toEqual({ free: range(3), stuck: [2, 3] });
  expect(seen.slice(3)).toEqual(['stuck 2 false', 'stuck 3 false']);
  expect(await stream.rows('select generation from tailrace.consumer_group')).toEqual([{ generation: 2 }]);
});

it('a seek of one partition forward skips there, while nobody runs, and nothing is handled again in another', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  const keys = ['a', 'b', 'c', 'd', 'e', 'f'];
  await stream.publish(...counts(keys, 1));
  const first = stream.consumer().on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
  await first.start();
  await stream.untilEffects(keys.length);
  await first.stop();
  await stream.publish(...counts(keys, 1, 2));
  const place = { log: stream.log, database: stream.pool, group: 'counting', topic: 'numbers' };
  const [moved] = await seekGroup({ ...place, partition: 1, to: 'latest' });
  expect(moved!.to).toBeGreaterThan(moved!.from);
  await expect(seekGroup({ ...place, to: { offset: 7_000n } })).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' });
  await expect(seekGroup({ ...place, partition: 9, to: 'latest' })).rejects.toMatchObject({ code: 'UNKNOWN_GROUP' });
  await expect(seekGroup({ ...place, group: 'no', to: 'latest' })).rejects.toMatchObject({ code: 'UNKNOWN_GROUP' });

  const second = stream.consumer().on(Counted, ({ payload }, { tx, isReplay }) => {
    expect(isReplay).toBe(false);
    return addEffect(tx, payload);
  });
  await second.start();
  const skipped = Number(moved!.to - moved!.from);
  await stream.untilEffects(2 * keys.length - skipped);
  expect(
    await stream.rows(
      'select count(*)::int as n, count(distinct generation)::int as g from tailrace.processed_message',
    ),
  ).toEqual([{ n: 2 * keys.length - skipped, g: 1 }]);
});

it('a log that lost its end: what comes again is known as handled, and what is new at its offsets is no replay', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  const handled: [number, boolean][] = [];
  const started = async (): Promise<Consumer> => {
    const consumer = stream.consumer().on(Counted, async ({ payload }, { tx, isReplay }) => {
      await addEffect(tx, payload);
      handled.push([payload.n, isReplay]);
    });
    await consumer.start();
    return consumer;
  };
  const before = await started();
  await stream.publish(...counts(['a'], 3)); // offsets 0 to 2
  for (const n of [4, 5]) await stream.publish(...counts(['a'], 1, n));
  await stream.untilEffects(5);
  await isStored(stream, 5);
  await before.stop();
  await stream.publish(...counts(['a'], 1, 6));

  const lost = await stream.rows<LostEntry>(
    'delete from tailrace.log_entry where base >= 3 returning base, partition, ids, seq',
  );
  await stream.pool
    .query(`insert into tailrace.parked_message (group_name, topic, partition, record_offset, message_id, type, kind,
      headers, payload, occurred_at, dead, reason, attempts)
    select 'counting', 'numbers', 0, 4, gen_random_uuid(), 'T', 'event', '{}', '{}', now(), true, 'HANDLER_FAILED', 1`);
  await expect(seek(stream, 'latest')).rejects.toMatchObject({
    code: 'GROUP_IN_USE',
    message: expect.stringMatching(
      /1 messages set aside in numbers partition 0 .* lost, 1 of them dead letters.* from 3 on/,
    ) as string,
  });
  await stream.pool.query('delete from tailrace.parked_message');
  expect(await seek(stream, 'latest')).toEqual([{ partition: 0, from: 5n, to: 3n }]);
  const idsAt = (base: string): LostEntry => lost.find((entry) => entry.base === base)!;
  for (const [base, entry] of [idsAt('5'), idsAt('3'), idsAt('4')].entries()) {
    await stream.rows(
      'insert into tailrace.log_entry (partition, base, count, ids, seq) values ($1, $2, 1, $3, $4) returning base',
      [entry.partition, 3 + base, entry.ids, entry.seq],
    );
  }
  const after = await started();
  await isStored(stream, 6);
  await after.stop();
  expect(handled).toEqual(range(6).map((n) => [n, false]));
});

interface LostEntry {
  readonly base: string;
  readonly partition: number;
  readonly ids: readonly string[];
  readonly seq: string;
}
