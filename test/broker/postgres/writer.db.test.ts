import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { LogWriter } from '../../../src/broker/postgres/index.ts';
import { acquire, appendTo, createLogFixture, entriesOf, idsByPartition, until, type LogFixture } from './fixture.ts';
import { createTcpProxy } from './tcp-proxy.ts';

/** Resolves once so many statements of writers wait for locks, with the process of one of them. */
function blocked(fixture: LogFixture, count: number): Promise<number> {
  return until(async () => {
    const { rows } = await fixture.pool.query<{ pid: number }>(
      `select pid from pg_stat_activity where datname = $1 and application_name = 'tailrace writer' and wait_event_type = 'Lock'`,
      [fixture.database.name],
    );
    return rows.length === count ? rows[0]?.pid : undefined;
  });
}

/** The moment at which the lease expires, once its holder's own session has renewed it. */
function renewed(fixture: LogFixture, after?: string): Promise<string> {
  return until(async () => {
    const { rows } = await fixture.pool.query<{ expires: string }>(
      `select l.expires_at::text as expires from tailrace.relay_lease l join pg_stat_activity a on a.pid = l.backend_pid
        where a.application_name = 'tailrace writer lease'`,
    );
    return rows.find(({ expires }) => expires !== after)?.expires;
  });
}

/** From here to the end of the test, time stands still in this process but for `vi.advanceTimersByTimeAsync`. */
function stopTime(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  onTestFinished(() => void vi.useRealTimers());
}

/** Lets the lease expire on the server while its holder lives on. The holder's first renewal is over then. */
async function expireLease(fixture: LogFixture): Promise<void> {
  await renewed(fixture);
  await fixture.pool.query('update tailrace.relay_lease set expires_at = clock_timestamp()');
}

async function writerWithTopic(fixture: LogFixture, options?: Parameters<typeof acquire>[1]): Promise<LogWriter> {
  const writer = await acquire(fixture.openLog({ partitions: 4 }), options);
  await writer.partitionCount('orders');
  return writer;
}

/** Waits for the right; `told` resolves when it is told to wait. */
function standBy(fixture: LogFixture): { told: Promise<unknown>; waiting: Promise<LogWriter> } {
  const told = Promise.withResolvers<unknown>();
  const signal = new AbortController().signal;
  const onWaiting = (): void => told.resolve(undefined);
  const waiting = fixture.openLog().acquireWriter({ holder: 'standby', leaseMs: 60_000, signal, onWaiting });
  return { told: told.promise, waiting };
}

describe('append', () => {
  it('gives dense offsets in the order of the ids, to all partitions at once', async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    const ids = await fixture.insert(10);
    const [a, b, c, d, e, f, g, h, i, j] = ids as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    await writer.append({
      appends: [
        { topic: 'orders', partition: 3, ids: [b, a] },
        { topic: 'orders', partition: 0, ids: [c] },
        { topic: 'orders', partition: 1, ids: [] },
        { topic: 'orders', partition: 3, ids: [d] },
      ],
      progress: 'one',
    });
    await writer.append({ appends: [{ topic: 'orders', partition: 3, ids: [j, e, f, g, h, i] }], progress: 'two' });
    expect(await idsByPartition(fixture.pool)).toEqual(
      new Map([
        [0, [c]],
        [3, [b, a, d, j, e, f, g, h, i]],
      ]),
    );
  });

  it('makes progress and checkpoint durable, with messages and without', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog();
    const writer = await acquire(log);
    expect([writer.progress, writer.checkpoint]).toEqual([undefined, undefined]);
    await writer.partitionCount('orders');
    await appendTo(writer, 0, await fixture.insert(1), 'first');
    await writer.append({ appends: [], progress: 'second', checkpoint: 'safe' });
    await writer.append({ appends: [], progress: 'third' });
    expect([writer.progress, writer.checkpoint]).toEqual(['third', 'safe']);
    await writer.release();
    const next = await acquire(fixture.openLog());
    expect([next.progress, next.checkpoint]).toEqual(['third', 'safe']);
    expect(await entriesOf(fixture.pool)).toHaveLength(1);
  });

  it('goes on at the offsets where a former holder stopped', async () => {
    await using fixture = await createLogFixture();
    const first = await writerWithTopic(fixture);
    const ids = await fixture.insert(6);
    await appendTo(first, 0, ids.slice(0, 2));
    await first.release();
    const second = await writerWithTopic(fixture);
    await appendTo(second, 0, ids.slice(2, 5));
    await appendTo(second, 1, ids.slice(5));
    expect(await idsByPartition(fixture.pool)).toEqual(
      new Map([
        [0, ids.slice(0, 5)],
        [1, ids.slice(5)],
      ]),
    );
  });

  it('refuses a topic or partition that does not exist, and goes on after it', async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    const ids = await fixture.insert(1);
    await expect(appendTo(writer, 4, ids)).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC' });
    await expect(
      writer.append({ appends: [{ topic: 'others', partition: 0, ids }], progress: 'p' }),
    ).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC' });
    await appendTo(writer, 3, ids);
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[3, ids]]));
  });

  it('refuses a second call while one is under way', async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    const [one, other] = await fixture.insert(2);
    const first = appendTo(writer, 0, [one!]);
    await expect(appendTo(writer, 0, [other!])).rejects.toMatchObject({ code: 'CONCURRENT_APPEND' });
    await first;
    await appendTo(writer, 0, [other!]);
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, [one, other]]]));
  });

  it('goes on from what is there where somebody wrote into the log by hand', async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    const ids = await fixture.insert(4);
    await appendTo(writer, 0, [ids[0]!]);
    await fixture.pool.query(
      `insert into tailrace.log_entry (partition, base, count, ids, seq)
        select id, 1, 2, $1::bigint[], 1 from tailrace.log_partition where partition = 0`,
      [ids.slice(1, 3)],
    );
    await fixture.pool.query(
      `insert into tailrace.relay_batch (name, seq, epoch, progress) values ('relay', 100, 0, '')`,
    );
    await appendTo(writer, 0, [ids[3]!]);
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, ids]]));
    const { rows } = await fixture.pool.query('select max(seq) as seq from tailrace.relay_batch');
    expect(rows).toEqual([{ seq: '101' }]);
  });

  it('takes a batch of a hundred thousand', async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    const ids = Array.from({ length: 100_000 }, (_, n) => n + 1);
    await appendTo(writer, 0, ids);
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, ids]]));
  });

  it('is durable even where the database lets commits return before they are', async () => {
    await using fixture = await createLogFixture();
    await fixture.pool.query(`alter database ${fixture.database.name} set synchronous_commit = off`);
    const writer = await writerWithTopic(fixture);
    const ids = await fixture.insert(20);
    const lsn = async (of: string): Promise<bigint> => {
      const { rows } = await fixture.pool.query<{ bytes: string }>(
        `select pg_current_wal_${of}_lsn() - '0/0' as bytes`,
      );
      return BigInt(rows[0]!.bytes);
    };
    for (const id of ids) {
      const before = await lsn('insert'); // what an append writes comes after it, and else only the WAL writer flushes
      await appendTo(writer, 0, [id]);
      expect(await lsn('flush')).toBeGreaterThan(before);
    }
  });
});

describe('an append whose result is unknown', () => {
  it('is found in the log, and not repeated, where only the answer was lost', async () => {
    await using fixture = await createLogFixture();
    await using proxy = await createTcpProxy(fixture.database.connectionString);
    const log = fixture.openLog({ connectionString: proxy.connectionString });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    const ids = await fixture.insert(3);
    await appendTo(writer, 0, [ids[0]!]);
    const lost = proxy.loseNextAnswer('tailrace writer');
    await appendTo(writer, 0, [ids[1]!]);
    await lost;
    await appendTo(writer, 0, [ids[2]!]);
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, ids]]));
    const { rows } = await fixture.pool.query('select seq from tailrace.relay_batch order by seq');
    expect(rows).toHaveLength(3);
    await log.close();
  });

  it('is repeated where its connection died before it could commit', async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    const ids = await fixture.insert(2);
    await appendTo(writer, 0, [ids[0]!]);
    const blocker = await fixture.pool.connect();
    await blocker.query('begin; lock table tailrace.log_entry in share mode');
    const append = appendTo(writer, 0, [ids[1]!]);
    const pid = await blocked(fixture, 1);
    await fixture.pool.query('select pg_terminate_backend($1, 10000)', [pid]);
    await blocker.query('commit');
    blocker.release();
    await append;
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, ids]]));
  });

  it('is repeated where the statement was cancelled', async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    const ids = await fixture.insert(1);
    const blocker = await fixture.pool.connect();
    await blocker.query('begin; lock table tailrace.log_entry in share mode');
    const append = appendTo(writer, 0, ids);
    await fixture.pool.query('select pg_cancel_backend($1)', [await blocked(fixture, 1)]);
    await blocker.query('commit');
    blocker.release();
    await append;
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, ids]]));
  });

  it('leaves no gap and no repeat, however often the connection dies', { timeout: 400_000 }, async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    const done = new AbortController();
    let kills = 0;
    let count = 0;
    const killing = (async () => {
      for (let inVain = 0, countBefore = 0; !done.signal.aborted;) {
        if (count > countBefore) [countBefore, inVain] = [count, 0];
        if (inVain >= 5) {
          await fixture.pool.query('select'); // lets one append come through, however slow the machine is
          continue;
        }
        const { rows } = await fixture.pool.query<{ name: string }>(
          `select application_name as name, pg_terminate_backend(pid) from pg_stat_activity
            where datname = $1 and application_name like 'tailrace writer%' and random() < 0.2`,
          [fixture.database.name],
        );
        const killed = rows.filter(({ name }) => name === 'tailrace writer').length;
        kills += killed;
        inVain += killed;
      }
    })();
    while (kills < 20 || count < 100) await appendTo(writer, count++ % 3, [count], String(count));
    done.abort();
    await killing;
    const ids = Array.from({ length: count }, (_, n) => n + 1);
    const expected = [0, 1, 2].map((partition) => [partition, ids.filter((_, n) => n % 3 === partition)] as const);
    expect(await idsByPartition(fixture.pool)).toEqual(new Map(expected));
    await writer.release();
    expect((await acquire(fixture.openLog())).progress).toBe(String(count));
  });
});

describe('the right to append', () => {
  it('is held by one at a time; the others wait and are told', async () => {
    await using fixture = await createLogFixture();
    const first = await acquire(fixture.openLog());
    const { told, waiting } = standBy(fixture);
    await told;
    expect(first.signal.aborted).toBe(false);
    await first.release();
    const second = await waiting;
    expect(second.signal.aborted).toBe(false);
  });

  it('passes on at once when it is given up', async () => {
    await using fixture = await createLogFixture();
    const first = await acquire(fixture.openLog());
    stopTime(); // so nobody looks again by himself
    const { told, waiting } = standBy(fixture);
    await told;
    await first.release();
    await waiting;
    await first.release();
    expect(first.signal.reason).toMatchObject({ code: 'STOPPED' });
    await expect(first.append({ appends: [], progress: 'late' })).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('is not waited for after a stop', async () => {
    await using fixture = await createLogFixture();
    await acquire(fixture.openLog());
    const stop = new AbortController();
    const waiting = fixture
      .openLog()
      .acquireWriter({ holder: 'b', leaseMs: 60_000, signal: stop.signal, onWaiting: () => stop.abort() });
    await expect(waiting).rejects.toMatchObject({ code: 'STOPPED' });
    await expect(
      fixture.openLog().acquireWriter({ holder: 'b', leaseMs: 60_000, signal: stop.signal }),
    ).rejects.toMatchObject({ code: 'STOPPED' });
    const log = fixture.openLog();
    const closed = log.acquireWriter({
      holder: 'c',
      leaseMs: 60_000,
      signal: new AbortController().signal,
      onWaiting: () => void log.close(),
    });
    await expect(closed).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('is taken over when it expires, and the former holder inserts nothing more', async () => {
    await using fixture = await createLogFixture();
    const zombie = await writerWithTopic(fixture);
    const ids = await fixture.insert(3);
    await appendTo(zombie, 0, [ids[0]!], 'zombie');
    await expireLease(fixture);
    const next = await writerWithTopic(fixture);
    await appendTo(next, 0, [ids[1]!], 'next');
    expect(zombie.signal.aborted).toBe(false); // it has not noticed: its next renewal is 20 s away
    await expect(appendTo(zombie, 0, [ids[2]!], 'late')).rejects.toMatchObject({ code: 'LEASE_LOST' });
    await expect(zombie.append({ appends: [], progress: 'later' })).rejects.toMatchObject({ code: 'LEASE_LOST' });
    expect(zombie.signal.reason).toMatchObject({ code: 'LEASE_LOST' });
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, ids.slice(0, 2)]]));
    await zombie.release();
    expect(next.signal.aborted).toBe(false);
    await appendTo(next, 0, [ids[2]!]); // the zombie's release took nothing away
  });

  it('is taken over only after an append that is under way', async () => {
    await using fixture = await createLogFixture();
    const zombie = await writerWithTopic(fixture);
    const ids = await fixture.insert(2);
    const blocker = await fixture.pool.connect();
    await blocker.query(
      `begin; insert into tailrace.relay_batch (name, seq, epoch, progress) values ('relay', 1, 0, '')`,
    );
    const late = appendTo(zombie, 0, [ids[0]!], 'late');
    await blocked(fixture, 1); // past the fence: it waits for the other row of its number
    await expireLease(fixture);
    const waiting = writerWithTopic(fixture);
    await blocked(fixture, 2);
    await blocker.query('rollback');
    blocker.release();
    await late;
    const next = await waiting;
    expect(next.progress).toBe('late');
    await appendTo(next, 0, [ids[1]!]);
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, ids]]));
  });

  it('is noticed to be lost by a renewal', async () => {
    await using fixture = await createLogFixture();
    const zombie = await acquire(fixture.openLog(), { leaseMs: 900 });
    const lost = once(zombie.signal, 'abort');
    await fixture.pool.query('update tailrace.relay_lease set epoch = epoch + 1');
    await lost;
    expect(zombie.signal.reason).toMatchObject({ code: 'LEASE_LOST' });
  });

  it('is kept by renewals, for longer than it lasts by itself', async () => {
    await using fixture = await createLogFixture();
    stopTime();
    const leaseMs = 3_600_000;
    const writer = await acquire(fixture.openLog(), { leaseMs });
    let expires = await renewed(fixture);
    for (let n = 0; n < 7; n++) {
      await vi.advanceTimersByTimeAsync(leaseMs / 3);
      expires = await renewed(fixture, expires);
    }
    expect(writer.signal.aborted).toBe(false);
  });

  it('survives the loss of its connections', async () => {
    await using fixture = await createLogFixture();
    stopTime();
    const leaseMs = 3_600_000;
    const writer = await writerWithTopic(fixture, { leaseMs });
    const expires = await renewed(fixture);
    await fixture.pool.query(
      `select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = $1 and application_name like 'tailrace writer%'`,
      [fixture.database.name],
    );
    await vi.advanceTimersByTimeAsync(leaseMs / 3);
    const again = renewed(fixture, expires);
    const isOver = again.then(() => true);
    while (!(await Promise.race([isOver, fixture.pool.query('select').then(() => false)]))) {
      await vi.advanceTimersByTimeAsync(20); // the waits between attempts
    }
    vi.useRealTimers();
    await appendTo(writer, 0, await fixture.insert(1));
    expect(writer.signal.aborted).toBe(false);
  });

  it('is no longer trusted when the server cannot be asked for as long as it lasts', async () => {
    await using fixture = await createLogFixture();
    await using proxy = await createTcpProxy(fixture.database.connectionString);
    const log = fixture.openLog({ connectionString: proxy.connectionString });
    stopTime();
    const leaseMs = 3_600_000;
    const writer = await acquire(log, { leaseMs });
    const lost = once(writer.signal, 'abort');
    await renewed(fixture);
    proxy.refuse('tailrace writer lease');
    await fixture.pool.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tailrace writer lease' and datname = $1`,
      [fixture.database.name],
    );
    await vi.advanceTimersByTimeAsync(leaseMs - 1_000);
    expect(writer.signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1_000);
    await lost;
    vi.useRealTimers();
    expect(writer.signal.reason).toMatchObject({ code: 'LEASE_LOST' });
    await log.close();
  });

  it('of a killed process is taken long before it expires', async () => {
    await using fixture = await createLogFixture();
    const leaseMs = 3_600_000; // far beyond the time that this test may take
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL('hold-lease.ts', import.meta.url)), fixture.database.connectionString, String(leaseMs)],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    await once(child.stdout, 'data');
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
    await acquire(fixture.openLog(), { leaseMs });
  });

  it('of a live holder is left alone, however often one looks', async () => {
    await using fixture = await createLogFixture();
    const writer = await acquire(fixture.openLog());
    const stop = new AbortController();
    const waiting = fixture.openLog().acquireWriter({ holder: 'b', leaseMs: 100, signal: stop.signal }); // looks every 25 ms
    const outcome = expect(waiting).rejects.toMatchObject({ code: 'STOPPED' });
    const { rows: before } = await fixture.pool.query('select epoch from tailrace.relay_lease');
    for (let n = 0; n < 200; n++) await fixture.insert(1);
    stop.abort();
    await outcome;
    const { rows: after } = await fixture.pool.query('select epoch from tailrace.relay_lease');
    expect(after).toEqual(before);
    expect(writer.signal.aborted).toBe(false);
  });

  it('is refused on another cluster or another history of it, until somebody accepts it', async () => {
    await using fixture = await createLogFixture();
    await (await acquire(fixture.openLog())).release();
    for (const change of ['timeline = timeline + 1', `system_identifier = '1'`]) {
      await fixture.pool.query(`update tailrace.relay_lease set ${change}`);
      const error = await acquire(fixture.openLog()).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: 'WRONG_CLUSTER', retryable: false });
      const accept = /update "tailrace"\.relay_lease set .*$/.exec((error as Error).message)?.[0];
      await fixture.pool.query(accept!);
      await (await acquire(fixture.openLog())).release();
    }
  });

  it('goes on to a new epoch even if its row was deleted', async () => {
    await using fixture = await createLogFixture();
    const zombie = await writerWithTopic(fixture);
    const ids = await fixture.insert(2);
    await appendTo(zombie, 0, [ids[0]!]);
    await fixture.pool.query('delete from tailrace.relay_lease');
    const next = await writerWithTopic(fixture);
    await expect(appendTo(zombie, 0, [ids[1]!])).rejects.toMatchObject({ code: 'LEASE_LOST' });
    await appendTo(next, 0, [ids[1]!]);
    expect(await idsByPartition(fixture.pool)).toEqual(new Map([[0, ids]]));
  });

  it('is not for leases that no timer can keep', async () => {
    await using fixture = await createLogFixture();
    for (const leaseMs of [0, 99, Number.NaN, Infinity]) {
      await expect(acquire(fixture.openLog(), { leaseMs })).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    }
  });
});

describe('appendedSinceCheckpoint', () => {
  it('gives the sorted ids of everything after the last stored checkpoint', async () => {
    await using fixture = await createLogFixture();
    const writer = await writerWithTopic(fixture);
    expect(await writer.appendedSinceCheckpoint()).toEqual(new Float64Array());
    const ids = Array.from({ length: 5_000 }, (_, n) => n + 1);
    for (let n = 0; n < 500; n++) await appendTo(writer, n % 4, ids.slice(10 * n, 10 * n + 10).reverse());
    expect(await writer.appendedSinceCheckpoint()).toEqual(Float64Array.from(ids)); // there was no checkpoint
    await writer.append({ appends: [{ topic: 'orders', partition: 0, ids: [9_000] }], progress: 'p', checkpoint: 'c' });
    expect(await writer.appendedSinceCheckpoint()).toEqual(new Float64Array());
    await appendTo(writer, 0, [20_000, 19_999]);
    await appendTo(writer, 1, [8_000]);
    expect(await writer.appendedSinceCheckpoint()).toEqual(Float64Array.of(8_000, 19_999, 20_000));
    await writer.release();
    const next = await writerWithTopic(fixture);
    expect(await next.appendedSinceCheckpoint()).toEqual(Float64Array.of(8_000, 19_999, 20_000));
  });
});

describe('old batches', () => {
  it('are deleted behind the checkpoint, but for the last thousand', async () => {
    await using fixture = await createLogFixture();
    const writer = await acquire(fixture.openLog());
    for (let n = 0; n < 1_100; n++) await writer.append({ appends: [], progress: String(n) });
    await writer.append({ appends: [], progress: 'last', checkpoint: 'safe' });
    await writer.release(); // waits for what is under way
    const { rows } = await fixture.pool.query<{ first: string; count: string }>(
      'select min(seq) as first, count(*) from tailrace.relay_batch',
    );
    expect(rows).toEqual([{ first: '101', count: '1001' }]);
    const next = await acquire(fixture.openLog());
    expect([next.progress, next.checkpoint]).toEqual(['last', 'safe']);
  });
});
