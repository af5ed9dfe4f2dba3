import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { seekGroup } from '../../src/consumer/index.ts';
import { migrate } from '../../src/postgres/migrations.ts';
import { addEffect, Counted, Noted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

describe('a consumer', () => {
  it('makes every effect once, in the order of its key', async () => {
    await using stream = await Stream.open();
    const keys = ['a', 'b', 'c', 'd', 'e', 'f'];
    await stream.publish(...counts(keys, 20));
    const consumer = stream.consumer().on(Counted, (event, { tx }) => addEffect(tx, event.payload));
    await consumer.start();
    await stream.publish(...counts(keys, 20, 21));
    await stream.untilEffects(240);
    await consumer.stop();
    expect(await stream.numbers()).toEqual(Object.fromEntries(keys.map((key) => [key, range(40)])));
    expect(consumer.status()).toMatchObject({
      state: 'stopped',
      handled: 240,
      duplicates: 0,
      running: 0,
      prefetched: 0,
    });
  });

  it('gives handlers the message, its place and the attempt', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const event = Counted({ key: 'ключ', n: 7 }, { headers: { trace: 'x' } });
    await stream.publish(Counted({ key: 'ключ', n: 6 }), event);
    const seen = Promise.withResolvers<unknown>();
    const consumer = stream.consumer().on(Counted, (message, { record, attempt, signal }) => {
      if (message.payload.n === 7) seen.resolve({ message: { ...message }, record, attempt, aborted: signal.aborted });
    });
    await consumer.start();
    expect(await seen.promise).toEqual({
      message: { ...event, headers: { trace: 'x' } },
      record: { topic: 'numbers', partition: 0, offset: 1n },
      attempt: 1,
      aborted: false,
    });
  });

  it('runs different keys side by side, up to its concurrency, and one key alone', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b', 'c', 'd', 'e'], 2));
    const running = new Set<string>();
    const most = { atOnce: 0 };
    const three = Promise.withResolvers<undefined>();
    const consumer = stream.consumer({ concurrency: 3 }).on(Counted, async ({ payload }, { tx }) => {
      expect(running.has(payload.key)).toBe(false);
      running.add(payload.key);
      most.atOnce = Math.max(most.atOnce, running.size);
      if (running.size === 3) three.resolve(undefined);
      await three.promise; // nobody ends before three run
      await addEffect(tx, payload);
      running.delete(payload.key);
    });
    await consumer.start();
    await stream.untilEffects(10);
    expect(most.atOnce).toBe(3);
    expect(consumer.status()).toMatchObject({ retried: 0, dead: 0 });
  });

  it('lets messages without a key overtake each other', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const { rows } = await stream.pool.query(
      `select tailrace.publish('numbers', null, 'Counted', json_build_object('key', 'none', 'n', n)) from generate_series(1, 2) n`,
    );
    expect(rows).toHaveLength(2);
    await stream.append();
    const second = Promise.withResolvers<undefined>();
    const consumer = stream.consumer().on(Counted, async ({ payload }, { tx }) => {
      if (payload.n === 1) await second.promise;
      await addEffect(tx, payload);
      if (payload.n === 2) second.resolve(undefined);
    });
    await consumer.start();
    await stream.untilEffects(2);
  });

  it('skips what it has handled when its place is behind', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a', 'b'], 5));
    const first = stream.consumer().on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await first.start();
    await stream.untilEffects(10);
    await first.stop();
    await stream.pool.query('update tailrace.consumer_cursor set next_offset = 0');
    const second = stream.consumer().on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await second.start();
    await until(() => second.status().duplicates === 10);
    expect(second.status().handled).toBe(0);
    expect(await stream.effects()).toHaveLength(10);
  });

  it('handles everything again in a new generation', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a', 'b'], 5));
    const consumer = stream.consumer().on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await stream.untilEffects(10);
    await until(async () => {
      const [sum] = await stream.rows<{ n: number }>('select sum(next_offset)::int as n from tailrace.consumer_cursor');
      return sum?.n === 10;
    });
    await seekGroup({ log: stream.log, database: stream.pool, group: 'counting', topic: 'numbers', to: 'earliest' });
    await stream.untilEffects(20);
    expect((await stream.numbers())['a']).toEqual([...range(5), ...range(5)]);
  });

  it('stores its place once it has handled everything, without being stopped', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a', 'b', 'c'], 5));
    const consumer = stream.consumer().on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await until(async () => {
      const [cursor] = await stream.rows<{ next_offset: string }>('select next_offset from tailrace.consumer_cursor');
      return cursor?.next_offset === '15';
    });
  });

  it('steps over types without a handler, and moves its place past them', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(Noted({ key: 'a', n: 1 }), Counted({ key: 'a', n: 1 }), Noted({ key: 'a', n: 2 }));
    const consumer = stream.consumer().on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await stream.untilEffects(1);
    await consumer.stop();
    expect(consumer.status()).toMatchObject({ handled: 1, ignored: 2, parked: 0 });
    expect(await stream.rows('select next_offset from tailrace.consumer_cursor')).toEqual([{ next_offset: '3' }]);
    expect(await stream.rows('select 1 from tailrace.parked_message')).toEqual([]);
  });

  it('parks types without a handler, whole, when told to', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const note = Noted({ key: 'a', n: 1 }, { headers: { trace: 'x' } });
    await stream.publish(note, Counted({ key: 'a', n: 1 }));
    const warnings: object[] = [];
    const consumer = stream
      .consumer({ onUnhandledType: 'park', logger: { ...silentLogger, warn: (fields) => void warnings.push(fields) } })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await until(() => consumer.status().handled === 1);
    expect(consumer.status()).toMatchObject({ parked: 1, dead: 0 });
    expect(warnings).toContainEqual(expect.objectContaining({ group: 'counting', topic: 'numbers', type: 'Noted' }));
    expect(await stream.rows('select * from tailrace.parked_message')).toEqual([
      expect.objectContaining({
        group_name: 'counting',
        topic: 'numbers',
        partition: 0,
        record_offset: '0',
        message_id: note.id,
        key: 'a',
        type: 'Noted',
        kind: 'event',
        headers: { trace: 'x' },
        payload: { key: 'a', n: 1 },
        occurred_at: note.occurredAt,
        dead: false,
        reason: 'UNHANDLED_TYPE',
        error: null,
        attempts: 0,
      }),
    ]);
  });

  it('handles the same message in each group', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a', 'b'], 3));
    for (const group of ['one', 'two']) {
      await stream
        .consumer({ group })
        .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload, group))
        .start();
    }
    await stream.untilEffects(12);
    const effects = await stream.effects();
    expect(effects.filter(({ member }) => member === 'one')).toHaveLength(6);
    expect(effects.filter(({ member }) => member === 'two')).toHaveLength(6);
  });

  it('works in a schema of another name, with a group whose name needs quoting', async () => {
    await using stream = await Stream.open();
    await stream.publish(Counted({ key: 'a', n: 1 }));
    const group = `o'brien\\ "x"`;
    await migrate(stream.pool, { schema: 'elsewhere' });
    const consumer = stream
      .consumer({ group, schema: 'elsewhere' })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await stream.untilEffects(1);
    expect(await stream.rows('select consumer from elsewhere.processed_message')).toEqual([{ consumer: group }]);
    await consumer.stop();
    expect(await stream.rows('select owner from elsewhere.consumer_cursor where owner is not null')).toEqual([]);
  });

  it('says that the tables are missing', async () => {
    await using stream = await Stream.open();
    const consumer = stream.consumer({ schema: 'elsewhere' }).on(Counted, () => undefined);
    await expect(consumer.start()).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
    expect(consumer.status().state).toBe('idle');
    await consumer.stop();
    expect(consumer.status().state).toBe('stopped');
    await expect(consumer.start()).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('can be started again where its start failed', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a'], 3));
    const consumer = stream
      .consumer({ schema: 'elsewhere' })
      .on(Counted, (event, { tx }) => addEffect(tx, event.payload));
    await expect(consumer.start()).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
    await expect(consumer.start()).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
    await migrate(stream.pool, { schema: 'elsewhere' });
    await consumer.start();
    await expect(consumer.start()).rejects.toMatchObject({ code: 'STOPPED' });
    await stream.untilEffects(3);
    await consumer.stop();
    expect(consumer.status()).toMatchObject({ state: 'stopped', handled: 3 });
  });

  it('makes partitions of processed_message ahead of time', async () => {
    await using stream = await Stream.open();
    await stream.pool.query(`
      do $$ declare child regclass; begin
        for child in select inhrelid::regclass from pg_inherits
          where inhparent = 'tailrace.processed_message'::regclass and inhrelid::regclass::text like '%\\_w%'
        loop execute format('drop table %s', child); end loop;
      end $$`);
    await stream
      .consumer()
      .on(Counted, () => undefined)
      .start();
    const [count] = await stream.rows<{ count: number }>(
      `select count(*)::int from pg_inherits where inhparent = 'tailrace.processed_message'::regclass`,
    );
    expect(count?.count).toBeGreaterThan(4);
  });
});
