import { describe, expect, it } from 'vitest';
import type { HandlerContext } from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
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
