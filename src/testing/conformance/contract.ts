import assert from 'node:assert/strict';
import { isTailraceError } from '../../base/errors.ts';
import type { Headers } from '../../message/message.ts';
import type { NewRecord } from '../../broker/record.ts';
import type { CaseDefinition } from './case.ts';
import { assertRefused, assertSame, idsOf, newRecord, newRecords, offsetsOf, type Scene } from './scene.ts';

/** A wait that no test sits through. */
const FOR_LONG_MS = 600_000;
const MAX_MESSAGE_BYTES = 1_000_000;

const everyByte = Buffer.from(Array.from({ length: 256 }, (_, n) => n));

/** Headers have no prototype, so they may have any name. */
const oddHeaders = Object.assign(Object.create(null) as Record<string, string>, {
  trace: '1',
  'ünï-🗝': '\u2028 and "quotes"',
  empty: '',
  constructor: 'own',
}) as Headers;

/** Messages that something on the way could change. */
function oddRecords(): NewRecord[] {
  return [
    newRecord({ payload: '{"b":1.10, "a":[12345678901234567890, "\\u00e9é\\\\"],\n "b":2}', headers: oddHeaders }),
    newRecord({ payload: 'null', kind: 'command' }),
    newRecord({ payload: '"\\u0000 and \\ud83d"', kind: 'document' }),
    newRecord({ payload: null, payloadBytes: everyByte, type: 'Ünïcode 🗝' }),
    newRecord({ payload: null, payloadBytes: Buffer.alloc(0) }),
    newRecord({ occurredAt: new Date('1969-12-31T23:59:59.999Z') }),
    newRecord({ occurredAt: new Date('9999-12-31T23:59:59.999Z') }),
    newRecord({ expiresAt: new Date('2040-01-01T00:00:00.123Z'), deliverAt: new Date('2030-06-01T12:00:00.001Z') }),
  ];
}

/** A message whose topic, key, type, headers and payload have so many bytes together. */
function recordOfSize(topic: string, bytes: number): NewRecord {
  const record = newRecord({ payload: '""' });
  const rest = Buffer.byteLength(topic) + Buffer.byteLength(record.type) + '{}'.length;
  return { ...record, payload: JSON.stringify('x'.repeat(bytes - rest - 2)) };
}

async function keepsWhole(scene: Scene, records: readonly NewRecord[]): Promise<void> {
  await scene.createTopic(1);
  await scene.append(0, records);
  assertSame(await scene.readAll(0), records);
}

/** Level 0: what every call does, and what goes in comes out. */
export const contractCases: readonly CaseDefinition[] = [
  {
    level: 0,
    name: 'gives the bytes, headers, kinds and times of messages as they were',
    run: (scene) => keepsWhole(scene, oddRecords()),
  },
  {
    level: 0,
    name: 'tells no key from an empty one, and keeps keys of any length and script',
    run: (scene) =>
      keepsWhole(
        scene,
        [null, '', ' ', 'schlüssel', '鍵', '🗝️', 'e\u0301', 'é', '\u{10ffff}', 'k'.repeat(2_000)].map((key) =>
          newRecord({ key }),
        ),
      ),
  },
  {
    level: 0,
    name: 'keeps a message of 1,000,000 bytes whole',
    run: (scene) => keepsWhole(scene, [recordOfSize(scene.topic, MAX_MESSAGE_BYTES), newRecord()]),
  },
  {
    level: 0,
    name: 'keeps a larger message whole, or refuses it with MESSAGE_TOO_LARGE',
    run: async (scene) => {
      await scene.createTopic(1);
      const large = recordOfSize(scene.topic, 2 * MAX_MESSAGE_BYTES);
      const wasTaken = await scene.append(0, [large]).then(
        () => true,
        (error: unknown) => {
          if (!isTailraceError(error, 'MESSAGE_TOO_LARGE')) throw error;
          return false;
        },
      );
      const next = newRecord();
      await scene.append(0, [next]);
      assertSame(await scene.readAll(0), wasTaken ? [large, next] : [next]);
    },
  },
  {
    level: 0,
    name: 'gives no more than maxRecords, maxRecordsEach and maxBytes, but one record at least',
    run: async (scene) => {
      await scene.createTopic(2);
      const payload = JSON.stringify('x'.repeat(10_000));
      for (const partition of [0, 1])
        await scene.append(
          partition,
          newRecords(10, () => ({ payload })),
        );
      const both = [scene.at(0), scene.at(1)];
      const few = await scene.fetch(both, { maxRecords: 7 });
      assert.ok(few.length >= 1 && few.length <= 7, `${few.length} records for 7.`);
      const each = await scene.fetch(both, { maxRecords: 7, maxRecordsEach: 2 });
      for (const partition of [0, 1]) {
        const count = each.filter((record) => record.partition === partition).length;
        assert.ok(count <= 2, `${count} records of partition ${partition} for 2.`);
      }
      const some = await scene.fetch(both, { maxBytes: 55_000 });
      assert.ok(some.length >= 1 && some.length <= 5, `${some.length} records of 10,002 bytes for 55,000.`);
      assert.equal((await scene.fetch(both, { maxBytes: 1 })).length, 1);
    },
  },
  {
    level: 0,
    name: 'gives a backlog in pieces of the size that a reader has room for',
    run: async (scene) => {
      await scene.createTopic(1);
      const payload = JSON.stringify('x'.repeat(1_000));
      const records = newRecords(1_500, () => ({ payload }));
      for (let n = 0; n < records.length; n += 500) await scene.append(0, records.slice(n, n + 500));
      let most = 0;
      let offset = 0n;
      while (offset < 1_500n) {
        const piece = await scene.fetch([scene.at(0, offset)], { maxBytes: 100_000 });
        assert.ok(piece.length > 0, `Nothing was given at offset ${offset}.`);
        assert.deepEqual(idsOf(piece), idsOf(records.slice(Number(offset), Number(offset) + piece.length)));
        most = Math.max(most, piece.length);
        offset += BigInt(piece.length);
      }
      assert.ok(most <= 100, `A piece of ${most} records of 1,002 bytes for 100,000.`);
    },
  },
  {
    level: 0,
    name: 'refuses bounds that make no sense',
    run: async (scene) => {
      await scene.createTopic(1);
      for (const options of [
        { maxBytes: 0 },
        { maxRecords: 0 },
        { maxRecords: Number.NaN },
        { maxRecordsEach: 0 },
        { maxWaitMs: -1 },
      ]) {
        await assertRefused(() => scene.fetch([scene.at(0)], options), 'INVALID_OPTION');
      }
      assert.deepEqual(await scene.fetch([]), []);
    },
  },
  {
    level: 0,
    name: 'gives nothing where there is nothing, at once or after maxWaitMs',
    run: async (scene) => {
      await scene.createTopic(1);
      assert.deepEqual(await scene.fetch([scene.at(0)]), []);
      assert.deepEqual(await scene.fetch([scene.at(0)], { maxWaitMs: 30 }), []);
    },
  },
  {
    level: 0,
    name: 'wakes a fetch that waits, whichever of its partitions grows',
    run: async (scene) => {
      await scene.createTopic(3);
      for (const partition of [2, 0]) {
        const ends = await Promise.all([0, 1, 2].map((n) => scene.endsOf(n)));
        const positions = ends.map(({ end }, n) => scene.at(n, end));
        const waiting = scene.fetch(positions, { maxWaitMs: FOR_LONG_MS });
        const record = newRecord();
        await scene.append(partition, [record]);
        assertSame(await waiting, [record]);
      }
    },
  },
  {
    level: 0,
    name: 'ends the wait of a fetch at its signal, with nothing',
    run: async (scene) => {
      await scene.createTopic(1);
      const abort = new AbortController();
      const waiting = scene.fetch([scene.at(0)], { maxWaitMs: FOR_LONG_MS, signal: abort.signal });
      abort.abort();
      assert.deepEqual(await waiting, []);
    },
  },
  {
    level: 0,
    name: 'ends the wait of a fetch when it is closed, with nothing; is closed twice; and refuses everything then',
    run: async (scene) => {
      const subject = await scene.open();
      const { log } = subject;
      await subject.createTopic(scene.topic, 1);
      assert.deepEqual(await log.fetch([scene.at(0)]), []);
      const waiting = log.fetch([scene.at(0)], { maxWaitMs: FOR_LONG_MS });
      await Promise.all([log.close(), log.close()]);
      assert.deepEqual(await waiting, []);
      await log.close();
      await assertRefused(() => log.fetch([scene.at(0)]), 'STOPPED');
      await assertRefused(() => log.ends(scene.topic), 'STOPPED');
      await assertRefused(() => log.partitionCount(scene.topic), 'STOPPED');
    },
  },
  {
    level: 0,
    name: 'says of a topic or a partition that it does not exist',
    run: async (scene) => {
      assert.equal(await scene.log.partitionCount(scene.topic), 0);
      assert.deepEqual(await scene.log.ends(scene.topic), []);
      await assertRefused(() => scene.fetch([scene.at(0)]), 'UNKNOWN_TOPIC');
      await scene.createTopic(2);
      assert.equal(await scene.log.partitionCount(scene.topic), 2);
      assert.deepEqual(await scene.log.ends(scene.topic), [
        { partition: 0, start: 0n, end: 0n },
        { partition: 1, start: 0n, end: 0n },
      ]);
      for (const partition of [2, -1]) await assertRefused(() => scene.fetch([scene.at(partition)]), 'UNKNOWN_TOPIC');
    },
  },
  {
    level: 0,
    name: 'keeps what it holds from readers that change what they were given',
    run: async (scene) => {
      const record = newRecord({ payload: null, payloadBytes: Buffer.from('abc') });
      await scene.createTopic(1);
      await scene.append(0, [record]);
      const [given] = await scene.fetch([scene.at(0)]);
      given?.payloadBytes?.fill(0);
      given?.occurredAt.setTime(0);
      const again = await scene.fetch([scene.at(0)]);
      assertSame(again, [{ ...record, payloadBytes: Buffer.from('abc') }]);
      assert.deepEqual(offsetsOf(again), [0n]);
    },
  },
];
