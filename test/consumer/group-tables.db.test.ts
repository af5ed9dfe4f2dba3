import { describe, expect, it } from 'vitest';
import { GroupTables } from '../../src/consumer/group-tables.ts';
import { Counted } from './counted.ts';
import { counts, Stream, until } from './kit.ts';

const tables = new GroupTables('"tailrace"', 'counting');

describe('GroupTables', () => {
  it('advances a place only forward, and only in the epoch that holds', async () => {
    await using stream = await Stream.open();
    const client = await stream.pool.connect();
    const advance = async (epoch: bigint, nextOffset: bigint): Promise<bigint | undefined> => {
      await tables.begin(client, 60_000);
      await tables.advance(client, [{ topic: 'numbers', partition: 0, epoch, nextOffset, wantedReach: nextOffset }]);
      const [row] = await tables.cursors(client);
      await client.query('commit');
      return row?.nextOffset;
    };
    await tables.begin(client, 60_000);
    await tables.addCursors(client, [{ topic: 'numbers', partition: 0, nextOffset: 5n }]);
    const [row] = await tables.cursors(client);
    expect(await tables.take(client, 'one', [row!], () => false)).toMatchObject([
      {
        ...{ topic: 'numbers', partition: 0, nextOffset: 5n, epoch: 1n, suspectBelow: 0n },
        ...{ generation: 1, replayBelow: 0n, replayUntil: 0n, replayExcept: [] },
      },
    ]);
    await client.query('commit');
    expect(await advance(1n, 7n)).toBe(7n);
    expect(await advance(1n, 6n)).toBe(7n);
    expect(await advance(0n, 9n)).toBe(7n);
    expect(await advance(2n, 9n)).toBe(7n);
    client.release();
  });

  it('has suspects where two owners, within an hour, left without a word', async () => {
    await using stream = await Stream.open();
    const client = await stream.pool.connect();
    await tables.begin(client, 60_000);
    await tables.addCursors(client, [{ topic: 'numbers', partition: 0, nextOffset: 5n }]);
    const take = async (wasAbandoned: boolean): Promise<boolean> => {
      const [taken] = await tables.take(client, 'one', await tables.cursors(client), () => wasAbandoned);
      return taken!.suspectBelow > 5n;
    };
    expect([await take(false), await take(true), await take(true)]).toEqual([false, false, true]);
    expect(await take(false)).toBe(true); // what they died of may not have been reached since
    await client.query(`update tailrace.consumer_cursor set abandoned_at = abandoned_at - interval '61 minutes'`);
    expect([await take(false), await take(true)]).toEqual([false, false]);
    await tables.release(client, await tables.cursors(client), () => false);
    expect(await take(false)).toBe(false);
    await tables.release(client, await tables.cursors(client), () => true); // under its old name, it is not wanted there any more
    expect(await take(false)).toBe(true);
    await client.query('commit');
    client.release();
  });

  it('counts a member until its lease has run out by the clock of the database', async () => {
    await using stream = await Stream.open();
    const client = await stream.pool.connect();
    await tables.begin(client, 60_000);
    const one = { memberId: 'one', topics: ['numbers'] };
    const two = { memberId: 'two', topics: ['numbers', 'letters'] };
    expect(await tables.heartbeat(client, one, 60_000)).toEqual([one]);
    expect(await tables.heartbeat(client, two, 60_000)).toEqual([one, two]);
    await client.query(
      `update tailrace.consumer_member set expires_at = now() - interval '1 ms' where member_id = 'one'`,
    );
    expect(await tables.heartbeat(client, two, 60_000)).toEqual([two]);
    expect((await client.query('select member_id from tailrace.consumer_member')).rows).toEqual([{ member_id: 'two' }]);
    await client.query('commit');
    client.release();
  });

  it('names those who are to wake, or all when they are too many for a notification', () => {
    expect(tables.wakes('one', JSON.stringify({ group: 'counting', members: ['one'] }))).toBe(true);
    expect(tables.wakes('two', JSON.stringify({ group: 'counting', members: ['one'] }))).toBe(false);
    expect(tables.wakes('one', JSON.stringify({ group: 'other', members: 'all' }))).toBe(false);
    expect(tables.wakes('two', JSON.stringify({ group: 'counting', members: 'all' }))).toBe(true);
    for (const foreign of [undefined, '', 'hello', '{}', 'null', '[1]'])
      expect(tables.wakes('one', foreign)).toBe(false);
  });

  it('wakes hundreds of members at once', async () => {
    await using stream = await Stream.open();
    const listener = await stream.pool.connect();
    await listener.query('listen tailrace_consumer');
    const heard = new Promise<string | undefined>((resolve) => {
      listener.on('notification', ({ payload }) => resolve(payload));
    });
    await tables.wake(
      listener,
      Array.from({ length: 500 }, (_, at) => `a member with a long name, number ${at}`),
    );
    expect(tables.wakes('whoever', await heard)).toBe(true);
    listener.release(true);
  });
});

describe('members that seldom beat', () => {
  it('hand partitions over at once, since they wake each other', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a', 'b', 'c', 'd'], 1));
    const seldom = { leaseMs: 6_000_000, heartbeatMs: 2_000_000, cursorIntervalMs: 2_000_000 };
    const [one, two] = [stream.consumer(seldom), stream.consumer(seldom)].map((each) =>
      each.on(Counted, () => undefined),
    );
    await one!.start();
    await two!.start();
    await until(() => one!.status().assignments.length === 2 && two!.status().assignments.length === 2);
    await one!.stop();
    await until(() => two!.status().assignments.length === 4);
  });
});
