import { expect, it } from 'vitest';
import { acquire, appendTo, createLogFixture } from './fixture.ts';

it('partitions are added between two appends: who routed by the former number appends nothing, and learns the new one', async () => {
  await using fixture = await createLogFixture();
  const log = fixture.openLog({ partitions: 2 });
  const operator = fixture.openLog();
  const writer = await acquire(log);
  expect(await writer.partitionCounts('orders')).toEqual([2]);
  const ids = await fixture.insert(7);
  await appendTo(writer, 0, ids.slice(0, 3));
  await appendTo(writer, 1, ids.slice(3, 4));

  await operator.addPartitions('orders', 5);
  expect(writer.partitionCounts('orders')).toEqual([2]); // nobody has told it
  await expect(appendTo(writer, 1, ids.slice(4, 6))).rejects.toMatchObject({
    code: 'PARTITIONS_CHANGED',
    retryable: true,
  });
  expect((await log.ends('orders')).map(({ end }) => end)).toEqual([3n, 1n, 0n, 0n, 0n]);
  expect(writer.signal.aborted).toBe(false);
  expect(await writer.partitionCounts('orders')).toEqual([2, 5]);
  await appendTo(writer, 4, ids.slice(4, 6));
  await operator.addPartitions('orders', 6);
  await expect(appendTo(writer, 4, ids.slice(6))).rejects.toMatchObject({ code: 'PARTITIONS_CHANGED' });
  expect(await writer.partitionCounts('orders')).toEqual([2, 5, 6]);
  await appendTo(writer, 5, ids.slice(6));

  const added = { opensAfter: [3n, 1n], start: 0n };
  expect(await log.ends('orders')).toEqual([
    { partition: 0, start: 0n, end: 3n },
    { partition: 1, start: 0n, end: 1n },
    { partition: 2, ...added, end: 0n },
    { partition: 3, ...added, end: 0n },
    { partition: 4, ...added, end: 2n },
    { partition: 5, opensAfter: [3n, 1n, 0n, 0n, 2n], start: 0n, end: 1n },
  ]);
  const another = await fixture.openLog().fetch([{ topic: 'orders', partition: 4, offset: 0n }]);
  expect(another).toHaveLength(2);
});

it('partitions are added before the first relay, and a new one knows of them', async () => {
  await using fixture = await createLogFixture();
  const log = fixture.openLog();
  await log.createTopic('orders', 3);
  await log.addPartitions('orders', 4);
  const first = await acquire(log);
  expect(await first.partitionCounts('orders')).toEqual([3, 4]);
  await appendTo(first, 3, await fixture.insert(1));
  await log.addPartitions('orders', 8);
  await first.release();
  const second = await acquire(log);
  expect(await second.partitionCounts('orders')).toEqual([3, 4, 8]);
  await appendTo(second, 7, await fixture.insert(1));
});

it.each([
  ['as many as there are', 'orders', 2, 'INVALID_OPTION', /partitions.*more than 2/],
  ['fewer than there are', 'orders', 1, 'INVALID_OPTION', /added, not removed/],
  ['too many', 'orders', 10_001, 'INVALID_OPTION', /partitions/],
  ['no topic', 'invoices', 3, 'UNKNOWN_TOPIC', /invoices/],
])('partitions are not added: %s', async (_case, topic, partitions, code, message) => {
  await using fixture = await createLogFixture();
  const log = fixture.openLog();
  await log.createTopic('orders', 2);
  await expect(log.addPartitions(topic, partitions)).rejects.toMatchObject({
    code,
    message: expect.stringMatching(message) as string,
  });
  expect(await log.partitionCount('orders')).toBe(2);
});
