import type pg from 'pg';
import { describe, expect, it } from 'vitest';
import type { Consumer, DeliveryContext, HandlerContext } from '../../src/consumer/index.ts';
import { addEffect, type Count, Counted } from './counted.ts';
import { counts, listeningLogger, range, Stream, until } from './kit.ts';

const KEYS = ['a', 'b', 'c', 'd'];

describe('a handler that does not end', () => {
  it('is given up, alone or with a batch, whatever its connection waits for; what it does later does nothing', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(Counted({ key: 'a', n: 1 }), Counted({ key: 'a', n: 2 }));
    await stream.pool.query('create table till (open boolean); insert into till values (true)');
    const holder = await stream.pool.connect();
    await holder.query('begin; update till set open = false');
    const late: Promise<unknown>[] = [];
    const hung = new Set<string>();
    const logger = listeningLogger();
    const isGivenUp = Promise.withResolvers<undefined>();
    const handle = async (group: string, numbers: number[], { tx, signal }: HandlerContext): Promise<void> => {
      const isFirst = !hung.has(group);
      hung.add(group);
      const writeLate = async (): Promise<void> => {
        await isGivenUp.promise;
        late.push(addEffect(tx, { key: 'a', n: 0 }).catch((error: unknown) => error));
      };
      if (isFirst) signal.addEventListener('abort', () => void writeLate());
      for (const n of numbers) await addEffect(tx, { key: 'a', n });
      if (isFirst) await tx.query('update till set open = true'); // waits for the holder, with the lock of its processed row
    };
    // Many attempts, since others may be too slow for this limit too.
    const options = { maxHandlerMs: 50, retries: { attempts: 100, backoff: { initialMs: 1 } }, logger };
    const single = stream
      .consumer({ group: 'single', ...options })
      .on(Counted, ({ payload }, context) => handle('single', [payload.n], context));
    const batch = stream.consumer({ group: 'batch', ...options }).onBatch(Counted, (events, context) =>
      handle(
        'batch',
        events.map(({ payload }) => payload.n),
        context,
      ),
    );
    await Promise.all([single.start(), batch.start()]);
    await until(() => single.status().handled === 2 && batch.status().handled === 2);
    isGivenUp.resolve(undefined);
    await until(() => late.length === 2);
    expect(await Promise.all(late)).toMatchObject([{ code: 'NOT_IN_TRANSACTION' }, { code: 'NOT_IN_TRANSACTION' }]);
    await holder.query('rollback');
    holder.release();
    expect((await stream.numbers())['a']?.sort()).toEqual([1, 1, 2, 2]);
    expect(single.status().retried).toBeGreaterThanOrEqual(1);
    expect(batch.status().retried).toBeGreaterThanOrEqual(2);
    expect(logger.lines.map(({ fields }) => fields)).toContainEqual(
      expect.objectContaining({ error: expect.stringContaining('longer than 50 ms'), next: 'retry' }),
    );
  });
});

describe('a circuit breaker', () => {
  it('stops the calls while all of them fail, uses no attempts up with its probes, and goes on after one that works', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(KEYS, 3));
    const logger = listeningLogger();
    let isDown = true;
    let calls = 0;
    const consumer = stream
      .consumer({
        logger,
        concurrency: 2,
        circuitBreaker: { failures: 4, wait: { initialMs: 1, maxMs: 4 } },
        retries: { attempts: 5, backoff: { initialMs: 1, maxMs: 1 } },
      })
      .on(Counted, async ({ payload }, { tx }) => {
        calls += 1;
        if (isDown) throw new Error('the till is closed');
        await addEffect(tx, payload);
      });
    await consumer.start();
    await until(() => calls >= 40); // more than all attempts of all keys together
    expect(consumer.status()).toMatchObject({ dead: 0, handled: 0, circuit: expect.stringMatching('open') });
    expect(consumer.status().retried).toBeLessThanOrEqual(5); // the four, and one that ran beside the fourth
    isDown = false;
    await stream.untilEffects(12);
    await until(() => consumer.status().handled === 12);
    expect(consumer.status()).toMatchObject({ dead: 0, circuit: 'closed' });
    expect(await stream.numbers()).toEqual(Object.fromEntries(KEYS.map((key) => [key, range(3)])));
    const messages = logger.lines.map(({ message }) => message);
    expect(messages).toContain('Handlers fail one after the other: the circuit is open');
    expect(messages.at(-1)).toContain('the circuit is closed');
  });
});

describe('limits', () => {
  it('are kept by two members together, who get through all the same', async () => {
    await using stream = await Stream.open();
    await stream.log.createTopic('numbers', 4);
    const limits = [
      { per: 'consumer', rate: 2_000, burst: 40, shared: true },
      { per: 'key', rate: 1_000, burst: 2 },
    ] as const;
    const members = ['one', 'two'].map((memberId) =>
      stream.consumer({ memberId, limits }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, memberId)),
    );
    await Promise.all(members.map((member) => member.start()));
    await until(() => members.every((member) => member.status().assignments.length === 2));
    const keys = range(16).map(String);
    await stream.publish(...counts(keys, 10));
    await stream.untilEffects(160);
    expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(10)])));
    await until(() => members.every((member) => member.status().limited === 0));
    const buckets = await stream.rows<{ name: string; tokens: number }>(
      'select name, tokens from tailrace.rate_bucket',
    );
    expect(buckets).toMatchObject([{ name: '0 consumer' }]);
    expect(buckets[0]?.tokens).toBeLessThanOrEqual(20); // half of the burst
  });

  it('give what there is in the shared bucket, and nothing where that is too little', async () => {
    await using stream = await Stream.open();
    await stream.pool.query(`insert into tailrace.consumer_group (name) values ('g')`);
    const take = async (least: number, wanted: number): Promise<unknown> => {
      const sql = `select tailrace.take_rate_tokens('g', 'b', 1e-9, 5, $1, $2) as tokens`;
      return (await stream.rows<{ tokens: number }>(sql, [least, wanted]))[0]?.tokens;
    };
    expect([await take(1, 3), await take(3, 9), await take(1, 9), await take(1, 1)]).toEqual([3, 0, 2, 0]);
    await stream.pool.query(`update tailrace.rate_bucket set counted_at = counted_at + interval '1 hour'`);
    expect(await take(1, 1)).toBe(0); // a clock that went back
    await stream.pool.query(
      `update tailrace.rate_bucket set counted_at = counted_at - interval '1000 years', tokens = 4`,
    );
    expect(await take(1, 9)).toBe(5); // a full one, and no more
  });
});

describe('deliveries', () => {
  it('at least once: calls handlers without a transaction, writes nothing for a message, and begins again where it was', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 2));
    const calls: string[] = [];
    const start = async (group: string): Promise<Consumer<DeliveryContext>> => {
      const consumer = stream
        .plainConsumer({ group, delivery: 'at-least-once', retries: { attempts: 2, backoff: { initialMs: 1 } } })
        .on(Counted, ({ payload: { key, n } }, context) => {
          expect('tx' in context).toBe(false);
          calls.push(`${key}${n}: ${context.attempt}`);
          if (key === 'a' && n === 1) throw new Error('the till is closed');
        });
      await consumer.start();
      return consumer;
    };
    const first = await start('plain');
    await until(() => first.status().handled === 3 && first.status().dead === 1);
    await first.stop();
    expect(calls.splice(0).sort()).toEqual(['a1: 1', 'a1: 2', 'a2: 1', 'b1: 1', 'b2: 1']);
    expect(await stream.rows('select next_offset from tailrace.consumer_cursor')).toEqual([{ next_offset: '4' }]);
    const processed = 'select payload from tailrace.processed_message join tailrace.outbox using (message_id)';
    expect(await stream.rows(processed)).toEqual([{ payload: { key: 'a', n: 1 } }]); // with the dead letter
    await stream.pool.query('update tailrace.consumer_cursor set next_offset = 3'); // as after a crash
    const second = await start('plain');
    await until(() => second.status().handled === 1);
    expect(calls).toEqual(['b2: 1']);
  });

  it('at most once: never calls a handler twice, not for a failure and not after a crash', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 3));
    const calls: string[] = [];
    const fail = (numbers: readonly Count[]): void => {
      calls.push(...numbers.map(({ key, n }) => `${key}${n}`));
      if (numbers.some(({ key, n }) => key === 'a' && n === 2)) throw new Error('the till is closed');
    };
    const start = async (group: string): Promise<Consumer<DeliveryContext>> => {
      const consumer = stream.plainConsumer({ group, delivery: 'at-most-once' });
      if (group === 'batch') consumer.onBatch(Counted, (events) => fail(events.map(({ payload }) => payload)));
      else consumer.on(Counted, ({ payload }) => fail([payload]));
      await consumer.start();
      return consumer;
    };
    for (const [group, dead] of [
      ['single', 1],
      ['batch', 6],
    ] as const) {
      const first = await start(group);
      await until(() => first.status().handled + first.status().dead === 6);
      await first.stop();
      expect(calls.splice(0).sort()).toEqual(['a1', 'a2', 'a3', 'b1', 'b2', 'b3']);
      expect(first.status()).toMatchObject({ dead, retried: 0 });
      await stream.pool.query('update tailrace.consumer_cursor set next_offset = 0'); // as after a crash
      const second = await start(group);
      await until(() => second.status().duplicates === 6);
      await second.stop();
      expect(calls).toEqual([]);
    }
    const letters =
      'select group_name, count(*)::int, max(attempts) as attempts from tailrace.parked_message group by 1 order by 1';
    expect(await stream.rows(letters)).toEqual([
      { group_name: 'batch', count: 6, attempts: 1 },
      { group_name: 'single', count: 1, attempts: 1 },
    ]);
  });
});

describe('a batch handler that moves the cursor', () => {
  it('writes one row for all, once also where a COMMIT goes unanswered and where a record is set aside', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b'], 3));
    const database = new ForgettingCommits(stream.pool);
    const consumer = stream
      .consumer({ database, cursorIntervalMs: 300_000, retries: { attempts: 2, backoff: { initialMs: 1 } } })
      .onBatch(Counted, { cursor: 'in-transaction', maxRecords: 2 }, async (events, { tx }) => {
        for (const { payload } of events) await addEffect(tx, payload);
        if (events.some(({ payload }) => payload.key === 'b' && payload.n === 3)) throw new Error('bad apple');
      });
    await consumer.start();
    await until(() => consumer.status().dead === 1);
    expect(database.forgotten).toBe(1);
    expect(consumer.status()).toMatchObject({ handled: 3, duplicates: 2 });
    expect(await stream.numbers()).toEqual({ a: [1, 2, 3], b: [1, 2] });
    expect(await stream.rows('select next_offset from tailrace.consumer_cursor')).toEqual([{ next_offset: '6' }]);
    expect(await stream.rows('select from tailrace.processed_message')).toEqual([]);
  });

  it('is refused where another owns the partition, or the place is past', async () => {
    await using stream = await Stream.open();
    await stream.pool.query(`insert into tailrace.consumer_group (name) values ('g');
      insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset, epoch) values ('g', 't', 0, 5, 7)`);
    const advance = (epoch: number, from: number, to: number): Promise<unknown> =>
      stream.pool.query(`select tailrace.advance_cursor('g', 't', 0, $1, $2, $3)`, [epoch, from, to]);
    await expect(advance(6, 5, 8)).rejects.toMatchObject({ code: 'TR001' });
    await expect(advance(7, 4, 8)).rejects.toMatchObject({ code: 'TR002' });
    await advance(7, 6, 8); // what lies between was stepped over
    await expect(advance(7, 6, 8)).rejects.toMatchObject({ code: 'TR002' });
  });
});

/** A pool whose first commit that is sent with other statements is made, and reported as a lost connection. */
class ForgettingCommits {
  readonly #pool: pg.Pool;
  forgotten = 0;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  async connect(): Promise<pg.PoolClient> {
    const client = await this.#pool.connect();
    const query = client.query.bind(client) as (...args: unknown[]) => unknown;
    let sent = 0;
    return new Proxy(client, {
      get: (target, property): unknown => {
        if (property === 'query') {
          return (...args: unknown[]): unknown => {
            const [submittable] = args as [
              { submit?: unknown; handleReadyForQuery(): void; handleError(error: Error): void },
            ];
            if (typeof submittable.submit === 'function' && (sent += 1) === 1 && this.forgotten === 0) {
              this.forgotten += 1;
              submittable.handleReadyForQuery = () => {
                submittable.handleError(new Error('Connection terminated unexpectedly'));
              };
            }
            return query(...args);
          };
        }
        const value: unknown = Reflect.get(target, property, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
  }
}
