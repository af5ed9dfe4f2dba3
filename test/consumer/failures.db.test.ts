import { describe, expect, it } from 'vitest';
import type { Log } from '../../src/broker/log.ts';
import { defineEvent } from '../../src/message/definition.ts';
import { addEffect, type Count, Counted } from './counted.ts';
import { counts, listeningLogger, range, Stream, until } from './kit.ts';

/** A dead letter as these tests look at it. */
interface DeadLetter {
  readonly key: string;
  readonly reason: string;
  readonly error: string;
  readonly attempts: number;
  readonly dead: boolean;
  readonly payload: unknown;
}

const deadLetters = (stream: Stream): Promise<DeadLetter[]> =>
  stream.rows('select key, reason, error, attempts, dead, payload from tailrace.parked_message order by record_offset');

const isPoison = ({ key, n }: Count): boolean => key === 'a' && n === 2;

describe('a handler that keeps or gives away its tx', () => {
  it.each(['release', 'end'] as const)('by %s, makes a dead letter, and the others go on', async (method) => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 1));
    const consumer = stream.consumer({ retries: { attempts: 1 } }).on(Counted, async ({ payload }, { tx }) => {
      await addEffect(tx, payload);
      if (payload.key === 'a') (tx as unknown as Record<string, () => void>)[method]?.();
    });
    await consumer.start();
    await until(() => consumer.status().dead + consumer.status().handled === 2);
    expect(await stream.numbers()).toEqual({ b: [1] });
    const error = expect.stringContaining('tried to release or end its tx') as unknown;
    expect(await deadLetters(stream)).toMatchObject([{ key: 'a', error }]);
  });

  it('cannot write into the transaction of the next one', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 2));
    const late: unknown[] = [];
    const nextRuns = Promise.withResolvers<undefined>();
    const isRefused = Promise.withResolvers<undefined>();
    const consumer = stream
      .consumer({ concurrency: 1, retries: { attempts: 1 } })
      .on(Counted, async ({ payload }, { tx }) => {
        if (payload.n === 1) {
          void nextRuns.promise
            .then(() => addEffect(tx, payload, 'late'))
            .catch((error: unknown) => {
              late.push(error);
              isRefused.resolve(undefined);
            });
          throw new Error('the till is closed');
        }
        nextRuns.resolve(undefined);
        await isRefused.promise;
        await addEffect(tx, payload);
      });
    await consumer.start();
    await until(() => consumer.status().handled === 1);
    expect(late).toMatchObject([{ code: 'NOT_IN_TRANSACTION' }]);
    expect(await stream.numbers()).toEqual({ a: [2] });
  });
});

describe('a handler that throws', () => {
  it('is tried again, undone each time, while other keys go on, until the record is a dead letter', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 3));
    const attempts: number[] = [];
    const othersAreDone = Promise.withResolvers<undefined>();
    const consumer = stream
      .consumer({ retries: { attempts: 3, backoff: { initialMs: 1 } } })
      .on(Counted, async ({ payload }, { tx, attempt }) => {
        await addEffect(tx, payload);
        if (payload.key === 'b' && payload.n === 3) othersAreDone.resolve(undefined);
        if (!isPoison(payload)) return;
        attempts.push(attempt);
        await othersAreDone.promise; // so the other key has gone on meanwhile
        throw new Error('the till is closed');
      });
    await consumer.start();
    await until(() => consumer.status().handled === 5);
    expect(attempts).toEqual([1, 2, 3]);
    expect(await stream.numbers()).toEqual({ a: [1, 3], b: [1, 2, 3] });
    expect(consumer.status()).toMatchObject({ retried: 2, dead: 1, duplicates: 0 });
    expect(await deadLetters(stream)).toEqual([
      {
        key: 'a',
        reason: 'HANDLER_FAILED',
        error: expect.stringMatching(/^Error: the till is closed\n/),
        attempts: 3,
        dead: true,
        payload: { key: 'a', n: 2 },
      },
    ]);
  });

  it('holds its key back, so that the order of the key stays', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 5));
    const begun: number[] = [];
    const consumer = stream
      .consumer({ retries: { attempts: 4, backoff: { initialMs: 1 } } })
      .on(Counted, async ({ payload }, { tx, attempt }) => {
        begun.push(payload.n);
        if (payload.n === 2 && attempt < 4) throw new Error('not yet');
        await addEffect(tx, payload);
      });
    await consumer.start();
    await until(() => consumer.status().handled === 5);
    expect(begun).toEqual([1, 2, 2, 2, 2, 3, 4, 5]);
    expect(await stream.numbers()).toEqual({ a: range(5) });
  });

  it('makes a dead letter of what only the commit refuses', async () => {
    await using stream = await Stream.open();
    await stream.pool.query('create table once (key text unique deferrable initially deferred)');
    await stream.publish(...counts(['a'], 2));
    const consumer = stream
      .consumer({ retries: { attempts: 2, backoff: { initialMs: 1 } } })
      .on(Counted, ({ payload }, { tx }) => tx.query('insert into once values ($1)', [payload.key]));
    await consumer.start();
    await until(() => consumer.status().dead === 1);
    expect(consumer.status().handled).toBe(1);
    expect(await deadLetters(stream)).toMatchObject([{ attempts: 2, error: expect.stringContaining('once_key_key') }]);
  });

  it('keeps errors that Postgres could not store as they are', async () => {
    await using stream = await Stream.open();
    await stream.publish(Counted({ key: 'a', n: 1 }));
    const consumer = stream.consumer({ retries: { attempts: 1 } }).on(Counted, () => {
      throw new Error(`zero \0 and ${'long '.repeat(10_000)}`);
    });
    await consumer.start();
    await until(() => consumer.status().dead === 1);
    const [letter] = await deadLetters(stream);
    expect(letter?.error).toContain('zero \uFFFD and long');
    expect(letter?.error.length).toBeLessThan(10_000);
  });
});

describe('a transaction that the handler leaves in another state', () => {
  it.each([
    ['wants to roll it back', /sent rollback, which was not run/, ['rollback']],
    ['wants to commit it', /sent commit, which was not run/, ['commit']],
    ['rolls it back in a text of several statements', /ended the transaction/, ['select 1; rollback']],
    ['leaves it aborted', /aborted/, ['select 1/0']],
  ])('is a failure with a clear message when it %s', async (_case, message, statements) => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a'], 2));
    const consumer = stream
      .consumer({ retries: { attempts: 2, backoff: { initialMs: 1 } } })
      .on(Counted, async ({ payload }, { tx }) => {
        await addEffect(tx, payload);
        if (payload.n === 1) for (const each of statements) await tx.query(each).catch(() => undefined);
      });
    await consumer.start();
    await until(() => consumer.status().handled === 1);
    expect(await stream.numbers()).toEqual({ a: [2] });
    expect(await deadLetters(stream)).toMatchObject([{ attempts: 2, error: expect.stringMatching(message) }]);
  });

  it('is reported when it was committed, and what was committed is not done again', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a'], 2));
    const logger = listeningLogger();
    const consumer = stream.consumer({ logger }).on(Counted, async ({ payload }, { tx }) => {
      await addEffect(tx, payload);
      if (payload.n === 1) await tx.query('select 1; commit');
    });
    await consumer.start();
    await until(() => consumer.status().handled === 1);
    expect(await stream.numbers()).toEqual({ a: [1, 2] });
    expect(consumer.status()).toMatchObject({ retried: 1, duplicates: 1 });
    expect(logger.lines.map(({ fields }) => fields)).toContainEqual(
      expect.objectContaining({ error: expect.stringContaining('ended the transaction') }),
    );
  });

  it('is a failure when it stands idle for too long', async () => {
    await using stream = await Stream.open();
    await stream.publish(Counted({ key: 'a', n: 1 }));
    const consumer = stream
      .consumer({ handlerIdleMs: 50, retries: { attempts: 2, backoff: { initialMs: 1 } } })
      .on(Counted, async (_event, { tx }) => {
        const { promise, resolve } = Promise.withResolvers<unknown>();
        tx.once('error', resolve);
        await promise; // nothing but the server ends this
      });
    await consumer.start();
    await until(() => consumer.status().dead === 1);
    expect(await deadLetters(stream)).toMatchObject([
      { attempts: 2, error: expect.stringContaining('idle for more than 50 ms') },
    ]);
  });
});

describe('what passes by itself', () => {
  it('uses up no attempt: a backend that is terminated under the handler', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a'], 2));
    let killed = 0;
    const consumer = stream.consumer({ retries: { attempts: 1 } }).on(Counted, async ({ payload }, { tx, attempt }) => {
      await addEffect(tx, payload);
      expect(attempt).toBe(1);
      if (payload.n === 1 && killed < 3) {
        killed += 1;
        await tx.query('select pg_terminate_backend(pg_backend_pid())');
      }
    });
    await consumer.start();
    await until(() => consumer.status().handled === 2);
    expect(killed).toBe(3);
    expect(await stream.numbers()).toEqual({ a: [1, 2] });
    expect(consumer.status()).toMatchObject({ retried: 0, dead: 0 });
  });

  it('uses up no attempt: a serialization failure', async () => {
    await using stream = await Stream.open();
    await stream.publish(Counted({ key: 'a', n: 1 }));
    let failures = 0;
    const consumer = stream.consumer({ retries: { attempts: 1 } }).on(Counted, async ({ payload }, { tx }) => {
      await addEffect(tx, payload);
      if ((failures += 1) <= 2) await tx.query(`do $$ begin raise exception 'later' using errcode = '40001'; end $$`);
    });
    await consumer.start();
    await until(() => consumer.status().handled === 1);
    expect(await stream.numbers()).toEqual({ a: [1] });
  });

  it('is not what a handler says of other servers: that uses up attempts', async () => {
    await using stream = await Stream.open();
    await stream.publish(Counted({ key: 'a', n: 1 }));
    const consumer = stream.consumer({ retries: { attempts: 2, backoff: { initialMs: 1 } } }).on(Counted, () => {
      throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
    });
    await consumer.start();
    await until(() => consumer.status().dead === 1);
    expect(await deadLetters(stream)).toMatchObject([{ attempts: 2 }]);
  });
});

describe('a payload that is no JSON', () => {
  it('is a dead letter at once, with its bytes', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a'], 3));
    let calls = 0;
    const consumer = stream.consumer({ log: spoiling(stream.log, 2) }).on(Counted, async ({ payload }, { tx }) => {
      calls += 1;
      await addEffect(tx, payload);
    });
    await consumer.start();
    await until(() => consumer.status().handled === 2);
    expect(calls).toBe(2);
    expect(await stream.numbers()).toEqual({ a: [1, 3] });
    expect(await stream.rows('select reason, attempts, payload, payload_bytes from tailrace.parked_message')).toEqual([
      { reason: 'INVALID_PAYLOAD', attempts: 1, payload: null, payload_bytes: Buffer.from('{"n": 2,') },
    ]);
  });
});

describe('a batch', () => {
  const Other = defineEvent<Count>('Other', { topic: 'numbers', key: ({ key }) => key });

  it('is made of neighbours of its type, at most so many, each handled once and in order', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 3), Other({ key: 'a', n: 4 }), Counted({ key: 'a', n: 5 }));
    const seen: string[] = [];
    const consumer = stream
      .consumer()
      .onBatch(Counted, { maxRecords: 4 }, async (events, { tx, record }) => {
        seen.push(`${record.offset}: ${events.map(({ payload }) => payload.key + String(payload.n)).join(' ')}`);
        for (const { payload } of events) await addEffect(tx, payload);
      })
      .on(Other, ({ payload }, { tx, record }) => {
        seen.push(`${record.offset}: other`);
        return addEffect(tx, payload);
      });
    await consumer.start();
    await until(() => consumer.status().handled === 8);
    expect(seen).toEqual(['0: a1 b1 a2 b2', '4: a3 b3', '6: other', '7: a5']);
    expect(await stream.numbers()).toEqual({ a: [1, 2, 3, 4, 5], b: [1, 2, 3] });
  });

  it('loses only the record that cannot be handled', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 4));
    const sizes: number[] = [];
    const consumer = stream
      .consumer({ retries: { attempts: 2, backoff: { initialMs: 1 } } })
      .onBatch(Counted, async (events, { tx }) => {
        sizes.push(events.length);
        for (const { payload } of events) await addEffect(tx, payload);
        if (events.some(({ payload }) => isPoison(payload))) throw new Error('bad apple');
      });
    await consumer.start();
    await until(() => consumer.status().handled === 7);
    expect(sizes).toEqual([8, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    expect(await stream.numbers()).toEqual({ a: [1, 3, 4], b: [1, 2, 3, 4] });
    expect(await deadLetters(stream)).toMatchObject([{ key: 'a', payload: { n: 2 }, attempts: 2 }]);
  });

  it('leaves out what was handled before, and a message that stands in it twice', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const id = '0190f3a0-0000-7000-8000-000000000001';
    const twice = Counted({ key: 'a', n: 2 }, { id });
    await stream.publish(...counts(['a'], 1), twice, twice, ...counts(['a'], 2, 3));
    await stream.pool.query(
      `insert into tailrace.processed_message select message_id, 'counting', 1 from tailrace.outbox where payload->>'n' = '3'`,
    );
    const consumer = stream.consumer().onBatch(Counted, async (events, { tx }) => {
      for (const { payload } of events) await addEffect(tx, payload);
    });
    await consumer.start();
    await until(() => consumer.status().handled === 3);
    expect(await stream.numbers()).toEqual({ a: [1, 2, 4] });
    expect(consumer.status().duplicates).toBe(2);
  });
});

/** The same log with the payload of one count cut short, as a broken store might give it. */
function spoiling(log: Log, n: number): Log {
  return {
    capabilities: log.capabilities,
    partitionCount: (topic) => log.partitionCount(topic),
    ends: (topic) => log.ends(topic),
    offsetsAt: (topic, time) => log.offsetsAt(topic, time),
    close: () => log.close(),
    fetch: async (positions, options) =>
      (await log.fetch(positions, options)).map((record) =>
        (JSON.parse(record.payload ?? '') as Count).n === n ? { ...record, payload: `{"n": ${n},` } : record,
      ),
  };
}
