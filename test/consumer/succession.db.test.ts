import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

const KEYS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
const EACH = 5;

describe('a transaction that begins behind the commit of another one', () => {
  it('has its client, so that hardly any is asked of the pool', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(KEYS, EACH));
    const pool = new pg.Pool({ connectionString: stream.database.connectionString, max: 3 });
    try {
      const sessions = new Set<number>();
      const consumer = stream.consumer({ database: pool, concurrency: 1 }).on(Counted, async ({ payload }, { tx }) => {
        sessions.add((tx as unknown as { processID: number }).processID);
        await addEffect(tx, payload);
      });
      let acquired = 0;
      await consumer.start();
      pool.on('acquire', () => {
        acquired += 1;
      });
      await until(() => consumer.status().handled === KEYS.length * EACH);
      expect(await stream.numbers()).toEqual(Object.fromEntries(KEYS.map((key) => [key, range(EACH)])));
      expect(sessions.size).toBeLessThanOrEqual(2);
      expect(acquired).toBeLessThan((KEYS.length * EACH) / 2);
      await consumer.stop();
    } finally {
      await pool.end();
    }
  });

  it('happens whether that commit is refused or not', async () => {
    await using stream = await Stream.open();
    await stream.pool.query('create table once (n int unique deferrable initially deferred)');
    await stream.pool.query('insert into once values (2), (4)');
    await stream.publish(...counts(KEYS, EACH));
    const consumer = stream
      .consumer({ concurrency: 2, retries: { attempts: 1 } })
      .on(Counted, async ({ payload: { n, ...rest } }, { tx }) => {
        await addEffect(tx, { n, ...rest });
        if (n === 2 || n === 4) await tx.query('insert into once values ($1)', [n]); // which only the commit refuses
      });
    await consumer.start();
    await until(() => consumer.status().handled + consumer.status().dead === KEYS.length * EACH);
    expect(consumer.status()).toMatchObject({ dead: KEYS.length * 2, duplicates: 0 });
    expect(await stream.numbers()).toEqual(Object.fromEntries(KEYS.map((key) => [key, [1, 3, 5]])));
  });

  it('begins anew where the partition of that one has gone to another owner', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(KEYS, EACH));
    let taken = 0;
    const consumer = stream.consumer({ concurrency: 1 }).on(Counted, async ({ payload }, { tx, record }) => {
      await addEffect(tx, payload);
      if (payload.n !== 2 || taken >= 3) return;
      taken += 1;
      await stream.pool.query('update tailrace.consumer_cursor set epoch = epoch + 1 where partition = $1', [
        record.partition,
      ]);
    });
    await consumer.start();
    await stream.untilEffects(KEYS.length * EACH);
    expect(taken).toBe(3);
    expect(await stream.numbers()).toEqual(Object.fromEntries(KEYS.map((key) => [key, range(EACH)])));
  });
});
