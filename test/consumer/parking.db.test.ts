import { describe, expect, it } from 'vitest';
import { seekGroup } from '../../src/consumer/index.ts';
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
  it('blocks its key, and nothing else', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 3));
    const consumer = stream.consumer({ retries: { attempts: 1 } }).on(
      Counted,
      async ({ payload }, { tx }) => {
        if (payload.key === 'a' && payload.n === 2) throw new Error('never');
        await addEffect(tx, payload);
      },
      { deadLetters: 'strict' },
    );
    await consumer.start();
    await until(() => consumer.status().handled === 4 && consumer.status().linedUp === 1);
    expect(await stream.numbers()).toEqual({ a: [1], b: range(3) });
    expect(await parked(stream)).toMatchObject([
      { key: 'a', n: 2, dead: true, blocks: true },
      { key: 'a', n: 3, dead: false, reason: 'KEY_PARKED' },
    ]);
  });
});
