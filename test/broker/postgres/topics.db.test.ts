import { describe, expect, it } from 'vitest';
import { createLogFixture, acquire, appendTo } from './fixture.ts';
import { postgresLog } from '../../../src/broker/postgres/index.ts';

describe('topics', () => {
  it('are created by the writer with the number of partitions that was asked for', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 3 });
    const writer = await acquire(log);
    expect(await writer.partitionCount('orders')).toBe(3);
    expect(writer.partitionCount('orders')).toBe(3); // known now, so without a wait
    expect(await fixture.openLog().partitionCount('orders')).toBe(3);
  });

  it('are not created where that is switched off', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ createTopics: false });
    const writer = await acquire(log);
    await expect(writer.partitionCount('orders')).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC' });
    expect(await log.partitionCount('orders')).toBe(0);
    await log.createTopic('orders', 2);
    expect(await writer.partitionCount('orders')).toBe(2);
  });

  it('are created once by many at the same time', async () => {
    await using fixture = await createLogFixture();
    const logs = [1, 2, 3, 4, 5].map(() => fixture.openLog());
    await Promise.all(logs.map((log) => log.createTopic('orders', 4)));
    const { rows } = await fixture.pool.query('select topic, partition from tailrace.log_partition order by partition');
    expect(rows).toEqual([0, 1, 2, 3].map((partition) => ({ topic: 'orders', partition })));
  });

  it('keep their number of partitions', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog();
    await log.createTopic('orders', 4);
    await log.createTopic('orders', 4);
    await expect(log.createTopic('orders', 5)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    expect(await log.partitionCount('orders')).toBe(4);
  });

  it.each(['', 'a b', 'ä', 'x'.repeat(201), 'a/b'])('refuse the name %j', async (name) => {
    await using fixture = await createLogFixture();
    const writer = await acquire(fixture.openLog());
    await expect(fixture.openLog().createTopic(name, 1)).rejects.toMatchObject({ code: 'INVALID_TOPIC' });
    await expect(writer.partitionCount(name)).rejects.toMatchObject({ code: 'INVALID_TOPIC' });
  });

  it.each([0, 10_001, 1.5, Number.NaN])('refuse %j partitions', async (partitions) => {
    await using fixture = await createLogFixture();
    await expect(fixture.openLog().createTopic('orders', partitions)).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    expect(() => fixture.openLog({ partitions })).toThrow(/partitions/);
  });
});

describe('ends', () => {
  it('are 0 and 0 for an empty partition, and none for an unknown topic', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog();
    await log.createTopic('orders', 2);
    expect(await log.ends('orders')).toEqual([
      { partition: 0, start: 0n, end: 0n },
      { partition: 1, start: 0n, end: 0n },
    ]);
    expect(await log.ends('others')).toEqual([]);
    expect(await log.partitionCount('others')).toBe(0);
  });

  it('are the first offset and the one that the next record gets', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 2 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    await appendTo(writer, 1, await fixture.insert(3));
    await appendTo(writer, 1, await fixture.insert(2));
    await appendTo(writer, 0, await fixture.insert(1));
    expect(await log.ends('orders')).toEqual([
      { partition: 0, start: 0n, end: 1n },
      { partition: 1, start: 0n, end: 5n },
    ]);
  });
});

describe('offsetsAt', () => {
  it('finds the first record appended at a time or later, in each partition', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 2 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    for (let n = 0; n < 40; n++) await appendTo(writer, 0, await fixture.insert(1 + (n % 3)));
    // Entry n was appended n seconds into the year.
    await fixture.pool.query(`update tailrace.log_entry set appended_at = '2026-01-01T00:00:00Z'::timestamptz
      + (seq - 1) * interval '1 second'`);
    const { rows } = await fixture.pool.query<{ base: string }>('select base from tailrace.log_entry order by base');
    for (const [n, { base }] of rows.entries()) {
      const time = (ms: number): Date => new Date(Date.UTC(2026, 0, 1) + n * 1000 + ms);
      const at = { topic: 'orders', partition: 0, offset: BigInt(base) };
      expect(await log.offsetsAt('orders', time(0))).toEqual([at, { topic: 'orders', partition: 1, offset: 0n }]);
      expect((await log.offsetsAt('orders', time(-1)))[0]).toEqual(at);
    }
  });

  it('is the start before everything, and the end after it', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ partitions: 1 });
    const writer = await acquire(log);
    await writer.partitionCount('orders');
    await appendTo(writer, 0, await fixture.insert(3));
    expect(await log.offsetsAt('orders', new Date(0))).toEqual([{ topic: 'orders', partition: 0, offset: 0n }]);
    expect(await log.offsetsAt('orders', new Date('2999-01-01'))).toEqual([
      { topic: 'orders', partition: 0, offset: 3n },
    ]);
    expect(await log.offsetsAt('others', new Date(0))).toEqual([]);
    await expect(log.offsetsAt('orders', new Date(Number.NaN))).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  });
});

describe('a log', () => {
  it('is closed more than once, and refuses work after it', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog();
    const writer = await acquire(log);
    await log.ends('orders');
    await Promise.all([log.close(), log.close()]);
    await log.close();
    expect(writer.signal.aborted).toBe(true);
    await expect(log.ends('orders')).rejects.toMatchObject({ code: 'STOPPED' });
    await expect(log.fetch([])).rejects.toMatchObject({ code: 'STOPPED' });
    await expect(acquire(log)).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('that was never used is closed', async () => {
    await postgresLog({ connectionString: 'postgresql://nobody@127.0.0.1:1/none' }).close();
  });

  it('says what to do where nothing was migrated', async () => {
    await using fixture = await createLogFixture();
    const log = fixture.openLog({ schema: 'elsewhere' });
    await expect(log.ends('orders')).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
    await expect(log.fetch([{ topic: 'orders', partition: 0, offset: 0n }])).rejects.toMatchObject({
      code: 'NOT_MIGRATED',
    });
    await expect(acquire(log)).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
  });

  it('names the option that cannot be used', () => {
    expect(() => postgresLog({ connectionString: '' })).toThrow(/connectionString/);
    expect(() => postgresLog({ connectionString: 'x', schema: 'No' })).toThrow(/schema/);
    expect(() => postgresLog({ connectionString: 'x', poll: { minMs: 5, maxMs: 4 } })).toThrow(/poll/);
  });
});
