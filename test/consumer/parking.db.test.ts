import { describe, expect, it } from 'vitest';
import { discardDeadLetters, editAndRetryDeadLetter, retryDeadLetters, seekGroup } from '../../src/consumer/index.ts';
import { addEffect, type Count, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

/** Often enough for any test, and soon. */
const SOON = { attempts: 1, delayed: { attempts: 1_000, initialMs: 5, maxMs: 20 } };

interface ParkedRow {
  readonly key: string;
  readonly n: number;
  readonly reason: string;
  readonly attempts: number;
  readonly dead: boolean;
  readonly blocks: boolean;
}

const parked = (stream: Stream): Promise<ParkedRow[]> =>
  stream.rows(
    `select key, (payload ->> 'n')::int as n, reason, attempts, dead, blocks from tailrace.parked_message
     order by topic, partition, record_offset`,
  );

describe('a record that fails for a while', () => {
  it('is parked, later ones of its key line up behind it, other keys go on, and the order of the key stays', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 4));
    let isMended = false;
    const begun: number[] = [];
    const consumer = stream.consumer({ retries: SOON }).on(Counted, async ({ payload }, { tx }) => {
      if (payload.key === 'a') begun.push(payload.n);
      if (payload.key === 'a' && payload.n === 2 && !isMended) throw new Error('not yet');
      await addEffect(tx, payload);
    });
    await consumer.start();
    await until(() => consumer.status().linedUp === 2 && consumer.status().handled === 5);
    expect(await stream.numbers()).toEqual({ a: [1], b: range(4) });
    expect(await parked(stream)).toMatchObject([
      { key: 'a', n: 2, reason: 'HANDLER_FAILED', dead: false, blocks: true },
      { key: 'a', n: 3, reason: 'KEY_PARKED', attempts: 0 },
      { key: 'a', n: 4, reason: 'KEY_PARKED', attempts: 0 },
    ]);
    await until(() => consumer.status().assignments[0]?.nextOffset === 8n); // the place goes on
    isMended = true;
    await stream.publish(...counts(['a'], 4, 5));
    await until(() => consumer.status().handled === 12);
    expect(await stream.numbers()).toEqual({ a: range(8), b: range(4) });
    expect(await parked(stream)).toEqual([]);
    await stream.publish(...counts(['a'], 1, 9)); // straight to its handler again
    await until(() => consumer.status().handled === 13);
    expect(begun.filter((n) => n !== 2)).toEqual([1, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('is a dead letter after its last delay, and its key goes on', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 3));
    const attempts: number[] = [];
    const consumer = stream
      .consumer({ retries: { attempts: 2, backoff: { initialMs: 1 }, delayed: { delaysMs: [1, 5] } } })
      .on(Counted, async ({ payload }, { tx, attempt }) => {
        if (payload.n === 2) {
          attempts.push(attempt);
          throw new Error(`failure ${attempt}`);
        }
        await addEffect(tx, payload);
      });
    await consumer.start();
    await until(() => consumer.status().dead === 1 && consumer.status().handled === 2);
    expect(attempts).toEqual([1, 2, 3, 4]);
    expect(await stream.numbers()).toEqual({ a: [1, 3] });
    expect(consumer.status()).toMatchObject({ retried: 1, delayed: 2, dead: 1 });
    const [letter] = await stream.rows<Record<string, unknown>>(
      `select *, first_failed_at < last_failed_at as in_time from tailrace.parked_message`,
    );
    expect(letter).toMatchObject({
      attempts: 4,
      first_error: expect.stringContaining('failure 1') as string,
      error: expect.stringContaining('failure 4') as string,
      in_time: true,
      dead: true,
    });
  });

  it('without a key holds nobody up', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const { defineEvent } = await import('../../src/message/definition.ts');
    const Loose = defineEvent<Count>('Counted', { topic: 'numbers' });
    await stream.publish(...range(4).map((n) => Loose({ key: 'none', n })));
    let isMended = false;
    const consumer = stream.consumer({ retries: SOON, concurrency: 1 }).on(Loose, async ({ payload }, { tx }) => {
      if (payload.n === 2 && !isMended) throw new Error('not yet');
      await addEffect(tx, payload);
    });
    await consumer.start();
    await until(() => consumer.status().handled === 3);
    isMended = true;
    await until(() => consumer.status().handled === 4);
    expect(await stream.numbers()).toEqual({ none: [1, 3, 4, 2] });
    expect(await parked(stream)).toEqual([]);
  });

  it('of a batch is parked alone', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 3));
    let isMended = false;
    const consumer = stream.consumer({ retries: SOON }).onBatch(Counted, async (events, { tx }) => {
      for (const { payload } of events) {
        if (payload.key === 'a' && payload.n === 2 && !isMended) throw new Error('not yet');
        await addEffect(tx, payload);
      }
    });
    await consumer.start();
    await until(() => consumer.status().handled === 4 && consumer.status().linedUp === 1);
    isMended = true;
    await until(() => consumer.status().handled === 6);
    expect(await stream.numbers()).toEqual({ a: range(3), b: range(3) });
  });
});

describe('what is parked', () => {
  it('outlives its owner, whoever comes next', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 4));
    const failing = stream.consumer({
      memberId: 'first',
      retries: { ...SOON, delayed: { delaysMs: [1] } },
      deadLetters: 'strict',
    });
    failing.on(Counted, async ({ payload }, { tx }) => {
      if (payload.key === 'a' && payload.n === 2) throw new Error('not here');
      await addEffect(tx, payload);
    });
    await failing.start();
    await until(() => failing.status().dead === 1 && failing.status().linedUp === 2 && failing.status().handled === 5);
    await failing.stop();
    await stream.rows(`update tailrace.parked_message set dead = false, due_at = clock_timestamp() where dead`);
    await stream.publish(...counts(['a'], 2, 5));
    const next = stream
      .consumer({ memberId: 'next' })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, 'next'));
    await next.start();
    await until(() => next.status().handled === 5);
    expect(await stream.numbers()).toEqual({ a: range(6), b: range(4) });
    expect(await parked(stream)).toEqual([]);
  });
});

describe('what was parked before a seek', () => {
  it('stays parked below the new place, and is read again above it', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 3)); // a1 b1 a2 b2 a3 b3
    let isMended = false;
    const consume = async () => {
      const consumer = stream.consumer({ retries: SOON }).on(Counted, async ({ payload }, { tx }) => {
        if (payload.n === 2 && !isMended) throw new Error('not yet');
        await addEffect(tx, payload);
      });
      await consumer.start();
      return consumer;
    };
    const before = await consume();
    await until(() => before.status().linedUp === 2);
    await before.stop();
    const group = { log: stream.log, database: stream.pool, group: 'counting', topic: 'numbers' };
    expect(await seekGroup({ ...group, to: { offset: 3n } })).toEqual([{ partition: 0, from: 6n, to: 3n }]); // b2
    isMended = true;
    const after = await consume();
    await until(() => after.status().handled === 4);
    expect(await stream.numbers()).toEqual({ a: range(3), b: range(3) });
    expect(await parked(stream)).toEqual([]);
    const gone = await stream.rows(`select action, record_offset::int as at from tailrace.parked_audit order by at`);
    expect(gone).toEqual([3, 4, 5].map((at) => ({ action: 'replay', at })));
  });
});

describe('a strict dead letter', () => {
  it('blocks its key and nothing else, until an operator retries, edits or discards it', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b', 'c', 'd'], 3));
    let isMended = false;
    const consumer = stream.consumer({ retries: { attempts: 1 } }).on(
      Counted,
      async ({ payload }, { tx }) => {
        if (payload.key !== 'd' && payload.n === 2 && !isMended) throw new Error('never');
        await addEffect(tx, payload);
      },
      { deadLetters: 'strict' },
    );
    await consumer.start();
    await until(() => consumer.status().handled === 6 && consumer.status().linedUp === 3);
    expect(await stream.numbers()).toEqual({ a: [1], b: [1], c: [1], d: range(3) });
    expect(await parked(stream)).toMatchObject([
      ...['a', 'b', 'c'].map((key) => ({ key, n: 2, dead: true, blocks: true })),
      ...['a', 'b', 'c'].map((key) => ({ key, n: 3, dead: false, reason: 'KEY_PARKED' })),
    ]);

    isMended = true;
    const options = { database: stream.pool, actor: 'somebody' };
    const place = { group: 'counting', topic: 'numbers', partition: 0 };
    expect(await retryDeadLetters({ group: 'counting' }, { ...options, dryRun: true })).toHaveLength(3);
    expect(await retryDeadLetters({ ...place, key: 'a' }, options)).toMatchObject([
      { key: 'a', reason: 'HANDLER_FAILED' },
    ]);
    const payload = '{"key":"c","n":20}';
    expect(await editAndRetryDeadLetter({ ...place, offset: 6n }, { payload }, options)).toHaveLength(1);
    expect(await discardDeadLetters({ ...place, key: 'b' }, options)).toMatchObject([{ offset: 5n }]);
    await until(() => consumer.status().handled === 11);
    expect(await stream.numbers()).toEqual({ a: range(3), b: [1, 3], c: [1, 20, 3], d: range(3) });
    expect(await parked(stream)).toEqual([]);
    const audit = await stream.rows(
      `select actor, action, before ->> 'key' as key, before -> 'payload' ->> 'n' as was, after -> 'payload' ->> 'n' as is
       from tailrace.parked_audit order by id`,
    );
    expect(audit).toEqual([
      { actor: 'somebody', action: 'retry', key: 'a', was: '2', is: '2' },
      { actor: 'somebody', action: 'edit', key: 'c', was: '2', is: '20' },
      { actor: 'somebody', action: 'discard', key: 'b', was: '2', is: null },
    ]);
  });
});

describe('a message with times', () => {
  it('is never handled before its deliverAt, and holds its key up by nothing', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(
      Counted({ key: 'a', n: 1 }, { deliverAt: new Date(Date.now() + 3_600_000) }),
      ...counts(['a'], 2, 2),
      Counted({ key: 'a', n: 4 }, { deliverAt: new Date(Date.now() - 3_600_000) }),
    );
    const times: Date[] = [];
    const consumer = stream.consumer().on(Counted, async ({ payload }, { tx }) => {
      await addEffect(tx, payload);
      const { rows } = await tx.query<{ now: Date }>('select clock_timestamp() as now');
      if (payload.n === 1) times.push(...rows.map(({ now }) => now));
    });
    await consumer.start();
    await until(() => consumer.status().handled === 3 && consumer.status().postponed === 1);
    expect(await stream.numbers()).toEqual({ a: [2, 3, 4] });
    const [row] = await stream.rows<{ due_at: Date }>(
      `update tailrace.parked_message set due_at = clock_timestamp() + interval '300 milliseconds'
       returning due_at, pg_notify('tailrace_consumer', '{"group":"counting","parked":true}')`,
    );
    await until(() => consumer.status().handled === 4);
    expect(times[0]?.getTime()).toBeGreaterThanOrEqual(row?.due_at.getTime() ?? Number.POSITIVE_INFINITY);
    expect(consumer.status().timersFired).toBe(1);
    expect(await parked(stream)).toEqual([]);
  });

  it('is a dead letter once it has expired, and blocks nothing even where dead letters do', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const [past, future] = [-3_600_000, 3_600_000].map((ms) => ({ expiresAt: new Date(Date.now() + ms) }));
    const events = [undefined, past, future].map((times, at) => Counted({ key: 'a', n: at + 1 }, times));
    await stream.publish(...events);
    const consumer = stream.consumer({ deadLetters: 'strict' }).onBatch(Counted, async (batch, { tx }) => {
      for (const { payload } of batch) await addEffect(tx, payload);
    });
    await consumer.start();
    await until(() => consumer.status().handled === 2);
    expect(await stream.numbers()).toEqual({ a: [1, 3] });
    expect(await parked(stream)).toMatchObject([{ n: 2, reason: 'EXPIRED', dead: true, blocks: false }]);
    await retryDeadLetters({ reason: 'EXPIRED' }, { database: stream.pool }); // somebody wants it all the same
    await until(() => consumer.status().handled === 3);
    expect(await stream.numbers()).toEqual({ a: [1, 3, 2] });
  });
});
