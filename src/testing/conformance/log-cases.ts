import assert from 'node:assert/strict';
import { pause } from '../../base/signal.ts';
import type { FetchOptions } from '../../broker/log.ts';
import type { LogRecord, NewRecord } from '../../broker/record.ts';
import { isTargetLog, type CaseDefinition } from './case.ts';
import {
  assertRefused,
  assertSame,
  between,
  idsOf,
  newRecord,
  newRecords,
  offsetsOf,
  plain,
  type Scene,
} from './scene.ts';

/** Appends batches of many sizes to the partitions of a topic, by turns. Gives the records by partition. */
async function fill(scene: Scene, partitions: number, batches: number): Promise<NewRecord[][]> {
  await scene.createTopic(partitions);
  const all = Array.from({ length: partitions }, (): NewRecord[] => []);
  for (let n = 0; n < batches; n++) {
    const partition = between(scene.random, 0, partitions - 1);
    const records = newRecords(between(scene.random, 1, 9), (m) => ({ key: m % 3 === 0 ? null : `key-${m}` }));
    await scene.append(partition, records);
    all[partition]?.push(...records);
  }
  return all;
}

function someBounds(scene: Scene): FetchOptions {
  return { maxRecords: between(scene.random, 1, 20), maxBytes: between(scene.random, 1, 5_000) };
}

/** How far apart by its clock the log is to append two records. */
const APART_MS = 20;
/** By how much the clock of the log may differ from ours. */
const CLOCK_DIFFERENCE_MS = 60_000;

async function offsetAt(scene: Scene, timeMs: number): Promise<bigint> {
  const [position] = await scene.log.offsetsAt(scene.topic, new Date(timeMs));
  assert.ok(position !== undefined, 'offsetsAt gives no position for the partition.');
  return position.offset;
}

/** A time at which the second of three records is the first one to come; `undefined` if there is none. */
async function timeBetween(scene: Scene, earlyMs: number, lateMs: number): Promise<number | undefined> {
  let [low, high] = [earlyMs, lateMs];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    const offset = await offsetAt(scene, middle);
    if (offset === 1n) return middle;
    if (offset < 1n) low = middle;
    else high = middle;
  }
  return undefined;
}

async function seeksByTime(scene: Scene): Promise<void> {
  await scene.createTopic(1);
  const beganMs = Date.now();
  for (let n = 0; n < 3; n++) {
    await scene.append(0, [newRecord()]);
    const appendedMs = Date.now();
    while (Date.now() < appendedMs + APART_MS) await pause(APART_MS);
  }
  const earlyMs = beganMs - CLOCK_DIFFERENCE_MS;
  const lateMs = Date.now() + CLOCK_DIFFERENCE_MS;
  assert.equal(await offsetAt(scene, 0), 0n);
  assert.equal(await offsetAt(scene, earlyMs), 0n);
  assert.equal(await offsetAt(scene, lateMs), 3n, 'After the last record there is only the end.');
  const found = await timeBetween(scene, earlyMs, lateMs);
  assert.ok(found !== undefined, 'There is no time at which the second record is the next one.');
  assert.deepEqual(await scene.log.offsetsAt(`${scene.topic}-none`, new Date()), []);
  await assertRefused(() => scene.log.offsetsAt(scene.topic, new Date(Number.NaN)), 'INVALID_OPTION');
}

async function refusesCompaction({ log, topic }: Scene): Promise<void> {
  if (!isTargetLog(log)) return;
  await assertRefused(() => log.createTopic(topic, 1, { compaction: true }), 'UNSUPPORTED_CAPABILITY');
  assert.equal(await log.partitionCount(topic), 0);
}

async function compacts(scene: Scene): Promise<void> {
  const { subject, topic } = scene;
  assert.ok(subject.compact !== undefined, 'Declared, and the subject has no compact to show it with.');
  await subject.createTopic(topic, 1, { compaction: true });
  const keyed = newRecords(30, (n) => ({ key: `key-${n % 4}` }));
  const last = keyed.splice(-4);
  const keyless = newRecords(2);
  const before = [...keyed.slice(0, 9), ...keyless, ...keyed.slice(9), ...last];
  await scene.append(0, before);
  await subject.compact(topic);
  assert.equal((await scene.endsOf(0)).end, 32n);
  const left = await readThroughHoles(scene);
  assert.ok(left.length < before.length, 'Nothing was removed.');
  assertAtTheirOffsets(left, before);
  for (const { messageId } of [...last, ...keyless])
    assert.ok(idsOf(left).includes(messageId), 'The last record of a key, or one without a key, is gone.');
  const next = newRecord({ key: 'key-3' });
  await scene.append(0, [next]);
  await subject.compact(topic);
  const after = await readThroughHoles(scene, () => someBounds(scene));
  assertAtTheirOffsets(after, [...before, next]);
  for (const { messageId } of [...last.filter(({ key }) => key !== next.key), ...keyless, next])
    assert.ok(idsOf(after).includes(messageId), 'The last record of a key, or one without a key, is gone.');
}

/** A marker that left with what it deletes would leave the value with whoever has read it already. */
async function keepsDeleteMarkers(scene: Scene): Promise<void> {
  const { subject, topic } = scene;
  assert.ok(subject.compact !== undefined, 'Declared, and the subject has no compact to show it with.');
  await subject.createTopic(topic, 1, { compaction: true });
  const keys = Array.from({ length: 10 }, (_, n) => `key-${n}`);
  const values = keys.map((key) => newRecord({ key }));
  const markers = keys.map((key) => newRecord({ key, payload: 'null' }));
  const before = [...values, ...markers, newRecord({ key: 'another' })];
  await scene.append(0, before);
  await subject.compact(topic);
  const left = await readThroughHoles(scene);
  assertAtTheirOffsets(left, before);
  const ids = new Set(idsOf(left));
  const lost = markers.filter(({ messageId }) => !ids.has(messageId));
  assert.deepEqual(lost, [], 'Delete markers left together with what they delete.');
  assert.ok(!values.every(({ messageId }) => ids.has(messageId)), 'Nothing of what was deleted has left.');
}

/** Everything that is left of partition 0, each fetch going on behind the one before. */
async function readThroughHoles(scene: Scene, options: () => FetchOptions = () => ({})): Promise<LogRecord[]> {
  const { start, end } = await scene.endsOf(0);
  const left: LogRecord[] = [];
  for (let offset = start; offset < end;) {
    const read = await scene.fetch([scene.at(0, offset)], options());
    if (read.length === 0) break;
    left.push(...read);
    offset = (read.at(-1)?.offset ?? end) + 1n;
  }
  return left;
}

function assertAtTheirOffsets(left: readonly LogRecord[], appended: readonly NewRecord[]): void {
  assertSame(
    left,
    left.flatMap(({ offset }) => appended[Number(offset)] ?? []),
  );
}

/** Level 4: offsets, and what is found at them. */
export const logCases: readonly CaseDefinition[] = [
  {
    level: 4,
    name: 'has no gaps: offsets count from 0, and a partition ends where they do',
    run: async (scene) => {
      const all = await fill(scene, 3, 40);
      for (const [partition, records] of all.entries()) {
        const read = await scene.readAll(partition);
        assertSame(read, records);
        assert.deepEqual(
          offsetsOf(read),
          records.map((_, n) => BigInt(n)),
        );
        assert.deepEqual(await scene.endsOf(partition), { partition, start: 0n, end: BigInt(records.length) });
      }
    },
  },
  {
    level: 4,
    name: 'gives the same on every read, byte for byte, whatever the bounds',
    run: async (scene) => {
      const all = await fill(scene, 2, 30);
      for (const partition of all.keys()) {
        const first = (await scene.readAll(partition)).map(plain);
        await scene.append(1 - partition, newRecords(3));
        for (let n = 0; n < 3; n++) {
          const again = await scene.readAll(partition, () => someBounds(scene));
          assert.deepEqual(again.map(plain).slice(0, first.length), first);
        }
      }
    },
  },
  {
    level: 4,
    name: 'is the same to a second reader of its own',
    run: async (scene) => {
      const [records = []] = await fill(scene, 1, 20);
      const [one, two] = await Promise.all([scene.readAll(0), scene.readAll(0, () => someBounds(scene))]);
      assertSame(one, records);
      assertSame(two, records);
    },
  },
  {
    level: 4,
    name: 'seeks by offset: each one is the first of what is read from it',
    run: async (scene) => {
      const [records = []] = await fill(scene, 1, 12);
      for (const [offset, expected] of records.entries()) {
        const [first] = await scene.fetch([scene.at(0, offset)], { maxRecords: 1 });
        assert.equal(first?.offset, BigInt(offset));
        assertSame([first], [expected]);
      }
    },
  },
  {
    level: 4,
    name: 'seeks by ends: nothing is there, and what comes next is',
    run: async (scene) => {
      await fill(scene, 1, 5);
      const { end } = await scene.endsOf(0);
      assert.deepEqual(await scene.fetch([scene.at(0, end)]), []);
      const next = newRecord();
      await scene.append(0, [next]);
      const read = await scene.fetch([scene.at(0, end)]);
      assertSame(read, [next]);
      assert.deepEqual(offsetsOf(read), [end]);
    },
  },
  {
    level: 4,
    name: 'seeks by time: the first record that was appended then or later',
    shows: {
      capability: 'time-seek',
      refuses: async (scene) => {
        await scene.createTopic(1);
        await assertRefused(() => scene.log.offsetsAt(scene.topic, new Date()), 'UNSUPPORTED_CAPABILITY');
      },
    },
    run: seeksByTime,
  },
  {
    level: 4,
    name: 'passes over no partition, however little room there is',
    run: async (scene) => {
      await scene.createTopic(3);
      for (const partition of [0, 1, 2]) await scene.append(partition, newRecords(200));
      const next = [0n, 0n, 0n];
      for (let n = 0; n < 150 && next.some((offset) => offset === 0n); n++) {
        for (const record of await scene.fetch(
          next.map((offset, partition) => scene.at(partition, offset)),
          { maxRecords: 1 },
        )) {
          next[record.partition] = record.offset + 1n;
        }
      }
      assert.ok(
        next.every((offset) => offset > 0n),
        `After 150 fetches of one record the readers are at ${next.join(', ')}.`,
      );
    },
  },
  {
    level: 4,
    name: 'raises OFFSET_OUT_OF_RANGE beyond the end and below 0, never another offset in place',
    run: async (scene) => {
      await fill(scene, 1, 4);
      const { end } = await scene.endsOf(0);
      await assertRefused(() => scene.fetch([scene.at(0, end + 1n)]), 'OFFSET_OUT_OF_RANGE');
      await assertRefused(() => scene.fetch([scene.at(0, end + 1_000_000n)], { maxWaitMs: 20 }), 'OFFSET_OUT_OF_RANGE');
      await assertRefused(() => scene.fetch([scene.at(0, -1n)]), 'OFFSET_OUT_OF_RANGE');
    },
  },
  {
    level: 4,
    name: 'raises OFFSET_OUT_OF_RANGE for what was removed, and keeps the offsets of what is left',
    needs: 'removal',
    run: async (scene) => {
      const records = newRecords(12);
      await scene.createTopic(1);
      for (let n = 0; n < 12; n += 3) await scene.append(0, records.slice(n, n + 3));
      await scene.subject.removeBefore?.(scene.at(0, 6));
      const { start, end } = await scene.endsOf(0);
      assert.ok(start > 0n && start <= 6n, `The partition starts at ${start}, expected 1 to 6.`);
      assert.equal(end, 12n);
      await assertRefused(() => scene.fetch([scene.at(0, 0)]), 'OFFSET_OUT_OF_RANGE');
      await assertRefused(() => scene.fetch([scene.at(0, start - 1n)]), 'OFFSET_OUT_OF_RANGE');
      assertSame(await scene.readAll(0), records.slice(Number(start)));
      await scene.append(0, [newRecord()]);
      assert.equal((await scene.endsOf(0)).end, 13n);
    },
  },
  {
    level: 4,
    name: 'never skips what has a place and cannot be seen yet',
    needs: 'hiding',
    run: async (scene) => {
      const records = newRecords(6);
      await scene.createTopic(1);
      await scene.append(0, records.slice(0, 2));
      const reveal = await scene.subject.appendHidden?.(scene.topic, 0, records.slice(2, 4));
      await scene.append(0, records.slice(4));
      const before = await scene.fetch([scene.at(0)]);
      const hidden = await scene.fetch([scene.at(0, 2)]);
      const waiting = scene.fetch([scene.at(0, 2)], { maxWaitMs: 600_000 });
      await reveal?.();
      assertSame(before, records.slice(0, 2));
      assert.deepEqual(hidden, []);
      const [first] = await waiting;
      assert.equal(first?.offset, 2n);
      assertSame(await scene.readAll(0), records);
    },
  },
  {
    level: 4,
    name: 'keeps the last record of each key of a compacted topic, at its offset',
    shows: {
      capability: 'compaction',
      refuses: refusesCompaction,
    },
    run: compacts,
  },
  {
    level: 4,
    name: 'keeps the delete markers of a compacted topic for who has read what they delete',
    shows: { capability: 'compaction', refuses: refusesCompaction },
    run: keepsDeleteMarkers,
  },
  {
    level: 4,
    name: 'gives what is delayed not before its time',
    shows: {
      capability: 'server-side-delay',
      refuses: async (scene) => {
        const { log, topic } = scene;
        if (!isTargetLog(log)) return;
        await scene.createTopic(1);
        const append = { topic, partition: 0, offset: 0n, records: newRecords(1), notBefore: new Date() };
        await assertRefused(() => log.append(append), 'UNSUPPORTED_CAPABILITY');
        assert.equal((await scene.endsOf(0)).end, 0n);
      },
    },
    run: async (scene) => {
      const { log, topic } = scene;
      assert.ok(isTargetLog(log), 'Declared, and the log has no append to show it with.');
      await scene.createTopic(1);
      const records = newRecords(2);
      const notBefore = new Date(Date.now() + 300);
      await log.append({ topic, partition: 0, offset: 0n, records, notBefore });
      const given = await scene.fetch([scene.at(0)], { maxWaitMs: 600_000 });
      assert.ok(Date.now() >= notBefore.getTime(), 'They were given before their time.');
      assertSame(given, records);
    },
  },
];
