import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { pollDelayMs, WakeUps } from '../../../src/broker/postgres/wake-ups.ts';
import { acquire, appendTo, createLogFixture, until, type LogFixture } from './fixture.ts';
import { createTcpProxy } from './tcp-proxy.ts';

/** So long that a test which waits for a poll fails by its own timeout. */
const NEVER_POLLS = { poll: { minMs: 600_000, maxMs: 600_000 } };
const LONG_MS = 300_000;
const start = { topic: 'orders', partition: 0, offset: 0n };

/** The server process that listens for a log; resolves once there is one that is not `other`. */
function listener(fixture: LogFixture, other?: number): Promise<number> {
  return until(async () => {
    const { rows } = await fixture.pool.query<{ pid: number }>(
      `select pid from pg_stat_activity where datname = $1 and application_name = 'tailrace listen'
        and state = 'idle' and query like 'listen %'`,
      [fixture.database.name],
    );
    return rows.find(({ pid }) => pid !== other)?.pid;
  });
}

/** Resolves once the server has answered a fetch. */
function firstLook(fixture: LogFixture): Promise<true> {
  return until(async () => {
    const { rowCount } = await fixture.pool.query(
      `select from pg_stat_activity where datname = $1 and application_name = 'tailrace log'
        and state = 'idle' and query like 'with wanted%'`,
      [fixture.database.name],
    );
    return rowCount === 0 ? undefined : true;
  });
}

describe('a waiting fetch', () => {
  it('is woken by an append through another log object', async () => {
    await using fixture = await createLogFixture();
    const reader = fixture.openLog(NEVER_POLLS);
    const writer = await acquire(fixture.openLog());
    await writer.partitionCount('orders');
    const waiting = reader.fetch([start], { maxWaitMs: LONG_MS });
    await listener(fixture);
    await reader.ends('orders'); // the look that follows the start of listening is over
    await reader.ends('orders');
    await appendTo(writer, 0, await fixture.insert(1));
    expect(await waiting).toHaveLength(1);
  });

  it('is woken by an append through its own log object, without a notification', async () => {
    await using fixture = await createLogFixture();
    await using proxy = await createTcpProxy(fixture.database.connectionString);
    proxy.refuse('tailrace listen');
    const log = fixture.openLog({ ...NEVER_POLLS, connectionString: proxy.connectionString });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    const waiting = log.fetch([start], { maxWaitMs: LONG_MS });
    await firstLook(fixture);
    await appendTo(writer, 0, await fixture.insert(1));
    expect(await waiting).toHaveLength(1);
    await log.close();
  });

  it('looks by itself where notifications do not arrive', async () => {
    await using fixture = await createLogFixture();
    const reader = fixture.openLog();
    const log = fixture.openLog();
    await log.createTopic('orders', 1);
    const waiting = reader.fetch([start], { maxWaitMs: LONG_MS });
    await listener(fixture);
    const [id] = await fixture.insert(1);
    await fixture.pool.query(
      // an append that notifies nobody
      `insert into tailrace.log_entry (partition, base, count, ids, seq)
        select id, 0, 1, array[$1::bigint], 1 from tailrace.log_partition`,
      [id],
    );
    expect(await waiting).toHaveLength(1);
  });

  it('does not fail when the listening connection is lost, and is woken through the next one', async () => {
    await using fixture = await createLogFixture();
    const reader = fixture.openLog(NEVER_POLLS);
    const writer = await acquire(fixture.openLog());
    await writer.partitionCount('orders');
    const waiting = reader.fetch([start], { maxWaitMs: LONG_MS });
    const first = await listener(fixture);
    await fixture.pool.query('select pg_terminate_backend($1, 10000)', [first]);
    await listener(fixture, first);
    await appendTo(writer, 0, await fixture.insert(1));
    expect(await waiting).toHaveLength(1);
  });

  it('looks once listening has begun, for what nobody could tell it before', async () => {
    await using fixture = await createLogFixture();
    await using proxy = await createTcpProxy(fixture.database.connectionString);
    proxy.refuse('tailrace listen');
    const reader = fixture.openLog({ ...NEVER_POLLS, connectionString: proxy.connectionString });
    const writer = await acquire(fixture.openLog());
    await writer.partitionCount('orders');
    const waiting = reader.fetch([start], { maxWaitMs: LONG_MS });
    await firstLook(fixture);
    await appendTo(writer, 0, await fixture.insert(1));
    proxy.allow('tailrace listen');
    expect(await waiting).toHaveLength(1);
    await reader.close();
  });

  it('shares one listening session with all others of its log', async () => {
    await using fixture = await createLogFixture();
    const reader = fixture.openLog(NEVER_POLLS);
    const writer = await acquire(fixture.openLog());
    await writer.partitionCount('orders');
    const waiting = Array.from({ length: 50 }, (_, n) =>
      reader.fetch([{ ...start, partition: n % 4 }], { maxWaitMs: LONG_MS }),
    );
    await listener(fixture);
    const { rowCount } = await fixture.pool.query(
      `select from pg_stat_activity where datname = $1 and application_name = 'tailrace listen'`,
      [fixture.database.name],
    );
    expect(rowCount).toBe(1);
    for (const partition of [0, 1, 2, 3]) await appendTo(writer, partition, await fixture.insert(1));
    expect((await Promise.all(waiting)).map(({ length }) => length)).toEqual(Array(50).fill(1));
  });

  it('ends at its time, at its signal, and with its log', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog(NEVER_POLLS);
    await log.createTopic('orders', 1);
    const startedMs = performance.now();
    expect(await log.fetch([start], { maxWaitMs: 150 })).toEqual([]);
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(149);
    expect(await log.fetch([start])).toEqual([]);

    const abort = new AbortController();
    const aborted = log.fetch([start], { maxWaitMs: LONG_MS, signal: abort.signal });
    await listener(fixture);
    abort.abort();
    expect(await aborted).toEqual([]);
    expect(await log.fetch([start], { maxWaitMs: LONG_MS, signal: abort.signal })).toEqual([]);

    const closed = log.fetch([start], { maxWaitMs: LONG_MS });
    await log.close();
    expect(await closed).toEqual([]);
  });

  it('of nothing waits as well', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog();
    const startedMs = performance.now();
    expect(await log.fetch([], { maxWaitMs: 50 })).toEqual([]);
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(49);
  });
});

describe('WakeUps', () => {
  /** Cannot listen: nothing answers at this address. */
  const deaf = (): WakeUps =>
    new WakeUps({
      connectionString: 'postgresql://nobody@127.0.0.1:1/none',
      channel: 'none',
      pollMinMs: 1,
      pollMaxMs: 1,
      logger: silentLogger,
    });
  const never = new AbortController().signal;

  it('wake those who wait for a partition that grew, and nobody else', async () => {
    const wakeUps = deaf();
    using one = wakeUps.park([1, 2]);
    using other = wakeUps.park([3]);
    wakeUps.wake([2]);
    expect(await other.wait(1, never)).toBe(false);
    expect(await one.wait(600_000, never)).toBe(true); // although it came before the wait
    expect(await one.wait(1, never)).toBe(false); // and only once
    await wakeUps.close();
  });

  it('wake everybody when it is not said which partitions grew', async () => {
    const wakeUps = deaf();
    using one = wakeUps.park([1]);
    using other = wakeUps.park([2]);
    wakeUps.wake();
    expect(await Promise.all([one.wait(600_000, never), other.wait(600_000, never)])).toEqual([true, true]);
    await wakeUps.close();
  });
});

describe('pollDelayMs', () => {
  it.each([
    [0, 25],
    [25, 25],
    [50, 50],
    [100, 100],
    [5_000, 1_000],
  ])('after %d ms without news is %d ms', (sinceNewsMs, expected) => {
    expect(pollDelayMs(sinceNewsMs, 25, 1_000)).toBe(expected);
  });
});
