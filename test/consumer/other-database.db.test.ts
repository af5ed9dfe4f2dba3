import { describe, expect, it } from 'vitest';
import { createTestDatabase } from '../servers/test-database.ts';
import { addEffect, Counted, EFFECT_TABLE, type Effect } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

describe("a handlers' database that is not the log's", () => {
  it('has what the group knows, fences its owners, and makes every effect once where its sessions are ended', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    await using other = await createTestDatabase();
    await other.pool.query(EFFECT_TABLE);
    const keys = ['a', 'b', 'c'];
    await stream.publish(...counts(keys, 10));
    let calls = 0;
    const consumer = stream.consumer({ database: other.pool }).on(Counted, async ({ payload }, { tx }) => {
      calls += 1;
      if (calls === 5) await other.pool.query('update tailrace.consumer_cursor set epoch = epoch + 1'); // as a new owner would
      if (calls === 10) {
        await tx.query(
          'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
        );
      }
      await addEffect(tx, payload);
    });
    await consumer.start();
    const effects = async (): Promise<Effect[]> =>
      (await other.pool.query<Effect>('select key, n, member from effect order by id')).rows;
    await until(async () => (await effects().catch(() => [])).length >= 30);
    await consumer.stop();
    const numbers = Object.groupBy(await effects(), ({ key }) => key);
    for (const key of keys) expect(numbers[key]?.map(({ n }) => n)).toEqual(range(10));
    expect(calls).toBeGreaterThan(30); // what was fenced or cut off came again
    const cursors = await other.pool.query('select sum(next_offset)::int as handled from tailrace.consumer_cursor');
    expect(cursors.rows).toEqual([{ handled: 30 }]);
    expect(await stream.rows('select from tailrace.consumer_group')).toEqual([]);
    expect(await stream.rows('select from tailrace.processed_message')).toEqual([]);
  });
});
