import { describe, expect, it } from 'vitest';
import { memoryLog, type MemoryLog, type NewRecord } from '../../../src/broker/memory/index.ts';
import { keyHash, partitionOf } from '../../../src/broker/partitioner.ts';
import { uuidV7 } from '../../../src/base/uuid.ts';
import { defineEvent } from '../../../src/message/definition.ts';

const OrderPlaced = defineEvent<{ orderId: string }>('OrderPlaced', { topic: 'orders', key: (order) => order.orderId });
const Noted = defineEvent<{ n: number }>('Noted', { topic: 'notes' });

const record = (payload: string): NewRecord => ({
  messageId: uuidV7(),
  kind: 'event',
  type: 'Counted',
  key: 'k',
  headers: {},
  payload,
  payloadBytes: null,
  occurredAt: new Date(),
});

const at = (offset: bigint, topic = 'orders', partition = 0) => ({ topic, partition, offset });

async function readAll(log: MemoryLog, topic: string): Promise<{ partition: number; payload: string | null }[]> {
  const ends = await log.ends(topic);
  const records = await log.fetch(ends.map(({ partition, start }) => ({ topic, partition, offset: start })));
  return records.map(({ partition, payload }) => ({ partition, payload }));
}

// What every log promises is tested by the conformance suite: test/testing/conformance.
describe('publish', () => {
  it('puts each message into the partition of its key, in order, and creates the topic', async () => {
    const log = memoryLog({ partitions: 5 });
    const orders = ['a', 'b', 'a', 'c', 'a'].map((orderId) => OrderPlaced({ orderId }));
    await log.publish(orders);
    expect(await log.partitionCount('orders')).toBe(5);
    const read = await readAll(log, 'orders');
    for (const { partition, payload } of read) {
      const { orderId } = JSON.parse(payload ?? '') as { orderId: string };
      expect(partition).toBe(partitionOf(keyHash(orderId), 5));
    }
    expect(read.filter(({ payload }) => payload === '{"orderId":"a"}')).toHaveLength(3);
    expect(read).toHaveLength(5);
  });

  it('keeps messages without a key together, and goes elsewhere with the next', async () => {
    const log = memoryLog({ partitions: 2 });
    await log.publish([Noted({ n: 1 }), Noted({ n: 2 })]);
    await log.publish(Noted({ n: 3 }));
    const partitions = Map.groupBy(await readAll(log, 'notes'), ({ partition }) => partition);
    expect([...partitions.values()].map((notes) => notes.map(({ payload }) => payload)).sort()).toEqual([
      ['{"n":1}', '{"n":2}'],
      ['{"n":3}'],
    ]);
  });

  it('keeps until when a message is good, and when it may be handled', async () => {
    const log = memoryLog({ partitions: 1 });
    const [soon, later] = [new Date('2030-01-01T00:00:00.001Z'), new Date('2031-01-01T00:00:00Z')];
    const calledMs = Date.now();
    await log.publish([
      OrderPlaced({ orderId: 'a' }, { deliverAt: soon, expiresAt: later }),
      OrderPlaced({ orderId: 'b' }, { delayMs: 60_000 }),
    ]);
    const [one, two] = await log.fetch([at(0n)]);
    expect(one).toMatchObject({ deliverAt: soon, expiresAt: later });
    expect(two?.expiresAt).toBeUndefined();
    expect(two?.deliverAt?.getTime()).toBeGreaterThanOrEqual(calledMs + 60_000);
  });

  it('takes all of its messages or none', async () => {
    const log = memoryLog({ maxMessageBytes: 200 });
    const large = OrderPlaced({ orderId: 'x'.repeat(200) });
    await expect(log.publish([OrderPlaced({ orderId: 'a' }), large])).rejects.toMatchObject({
      code: 'MESSAGE_TOO_LARGE',
    });
    expect(await log.partitionCount('orders')).toBe(0);
  });
});

describe('removeBefore', () => {
  it('forgets records, not offsets', async () => {
    const log = memoryLog();
    await log.createTopic('orders', 1);
    await log.append({ ...at(0n), records: [record('1'), record('2'), record('3')] });
    await log.removeBefore(at(2n));
    await log.removeBefore(at(1n)); // nothing is left there
    expect(await log.ends('orders')).toEqual([{ partition: 0, start: 2n, end: 3n }]);
    await log.removeBefore(at(9n));
    expect(await log.ends('orders')).toEqual([{ partition: 0, start: 3n, end: 3n }]);
    await log.append({ ...at(3n), records: [record('4')] });
    expect(await readAll(log, 'orders')).toEqual([{ partition: 0, payload: '4' }]);
  });
});

describe('compact', () => {
  const keyed = (key: string | null, payload: string): NewRecord => ({ ...record(payload), key });

  async function left(log: MemoryLog): Promise<[offset: bigint, payload: string | null][]> {
    const [ends] = await log.ends('orders');
    const records = await log.fetch([at(ends?.start ?? 0n)]);
    return records.map(({ offset, payload }) => [offset, payload]);
  }

  async function filled(records: readonly NewRecord[], deleteRetentionMs?: number): Promise<MemoryLog> {
    const log = memoryLog(deleteRetentionMs === undefined ? {} : { deleteRetentionMs });
    await log.createTopic('orders', 1, { compaction: true });
    await log.append({ ...at(0n), records });
    return log;
  }

  const HISTORY = [
    keyed('a', '1'),
    keyed(null, '2'),
    keyed('b', '3'),
    keyed('a', '4'),
    keyed('b', 'null'),
    keyed('c', '6'),
  ];

  it('keeps the last record of each key at its offset, and reads on over the holes', async () => {
    const log = await filled(HISTORY);
    await log.compact('orders');
    const expected = [
      [1n, '2'],
      [3n, '4'],
      [4n, 'null'],
      [5n, '6'],
    ];
    expect(await left(log)).toEqual(expected);
    expect(await log.ends('orders')).toEqual([{ partition: 0, start: 0n, end: 6n }]);
    for (const offset of [2n, 3n]) expect((await log.fetch([at(offset)]))[0]?.offset).toBe(3n);
    expect(await log.offsetsAt('orders', new Date(0))).toEqual([at(1n)]);
    await log.append({ ...at(0n), records: HISTORY }); // all of it is there, or was
    await log.append({ ...at(6n), records: [keyed('d', '7')] });
    expect(await left(log)).toEqual([...expected, [6n, '7']]);
    await log.removeBefore(at(2n)); // in a hole
    expect(await left(log)).toEqual([...expected.slice(1), [6n, '7']]);
  });

  it('removes a delete marker with the first compaction after its time, and never the last record', async () => {
    const log = await filled([keyed('b', '1'), keyed('b', 'null'), keyed('c', 'null')], 0);
    await log.compact('orders');
    expect(await left(log)).toEqual([
      [1n, 'null'],
      [2n, 'null'],
    ]);
    await log.compact('orders');
    expect(await left(log)).toEqual([[2n, 'null']]);
    await log.append({ ...at(3n), records: [keyed('d', '4')] });
    await log.compact('orders');
    expect(await left(log)).toEqual([[3n, '4']]);
  });

  it('keeps delete markers for a day', async () => {
    const log = await filled(HISTORY);
    for (let n = 0; n < 3; n++) await log.compact('orders');
    expect(await left(log)).toContainEqual([4n, 'null']);
  });

  it('is refused for topics that keep everything', async () => {
    const log = memoryLog();
    await expect(log.compact('orders')).rejects.toMatchObject({ code: 'UNKNOWN_TOPIC' });
    await log.createTopic('orders', 1);
    await expect(log.compact('orders')).rejects.toThrow(/topic is orders; expected one that was created/);
    await expect(log.createTopic('orders', 1, { compaction: true })).rejects.toThrow(/compaction is true/);
  });
});

describe('append', () => {
  it('appends of a batch what is missing', async () => {
    const log = memoryLog();
    await log.createTopic('orders', 1);
    const [one, two, three] = [record('1'), record('2'), record('3')];
    await log.append({ ...at(0n), records: [one, two] });
    await log.append({ ...at(1n), records: [two, three] });
    expect((await readAll(log, 'orders')).map(({ payload }) => payload)).toEqual(['1', '2', '3']);
    await expect(log.append({ ...at(-1n), records: [one] })).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' });
  });
});

it('refuses options that make no sense', () => {
  expect(() => memoryLog({ partitions: 0 })).toThrow(/partitions is 0/);
  expect(() => memoryLog({ maxMessageBytes: Number.NaN })).toThrow(/maxMessageBytes is NaN/);
  expect(() => memoryLog({ deleteRetentionMs: -1 })).toThrow(/deleteRetentionMs is -1/);
});
