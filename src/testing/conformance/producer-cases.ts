import assert from 'node:assert/strict';
import type { RecordsToAppend, TargetLog } from '../../broker/log.ts';
import type { NewRecord } from '../../broker/record.ts';
import { isTargetLog, type CaseDefinition } from './case.ts';
import { assertRefused, assertSame, newRecords, type Scene } from './scene.ts';

/** The log as forwarders see it, and what they ask of it. */
async function target(scene: Scene): Promise<{
  readonly log: TargetLog;
  readonly to: (offset: number, records: readonly NewRecord[]) => RecordsToAppend;
}> {
  const { log, topic } = scene;
  assert.ok(isTargetLog(log));
  await scene.createTopic(1);
  return { log, to: (offset, records) => ({ topic, partition: 0, offset: BigInt(offset), records }) };
}

/** Level 6: what a forwarder relies on. */
export const producerCases: readonly CaseDefinition[] = [
  {
    level: 6,
    name: 'appends once what is sent again because its outcome was unknown',
    needs: 'target',
    run: async (scene) => {
      const { log, to } = await target(scene);
      const records = newRecords(6);
      const sends = [to(0, records.slice(0, 3)), to(0, records.slice(0, 3)), to(3, records.slice(3))];
      for (const send of sends) await log.append(send);
      await Promise.all([log.append(to(0, records.slice(0, 3))), log.append(to(3, records.slice(3)))]);
      assertSame(await scene.readAll(0), records);
    },
  },
  {
    level: 6,
    name: 'appends what is missing for a forwarder that was killed before it noted what it had appended',
    needs: 'target',
    run: async (scene) => {
      const { log, to } = await target(scene);
      const records = newRecords(10);
      await log.append(to(0, records.slice(0, 4)));
      await log.append(to(2, records.slice(2, 8))); // another one goes on from the last note
      await log.append(to(6, records.slice(6)));
      assertSame(await scene.readAll(0), records);
    },
  },
  {
    level: 6,
    name: 'appends once what two forwarders append at the same time',
    needs: 'target',
    run: async (scene) => {
      const { log, to } = await target(scene);
      const records = newRecords(60);
      const forward = async (size: number): Promise<void> => {
        for (let at = 0; at < records.length; at += size) await log.append(to(at, records.slice(at, at + size)));
      };
      await Promise.all([forward(3), forward(5)]);
      assertSame(await scene.readAll(0), records);
    },
  },
  {
    level: 6,
    name: 'refuses a forwarder that has other records for the same offsets, and takes nothing of them',
    needs: 'target',
    run: async (scene) => {
      const { log, to } = await target(scene);
      const records = newRecords(4);
      await log.append(to(0, records));
      const others = newRecords(3);
      const error = await assertRefused(() => log.append(to(2, others)), 'APPEND_CONFLICT');
      assert.equal(error.details.end, 4n);
      await assertRefused(() => log.append(to(3, [...records.slice(3), ...others].reverse())), 'APPEND_CONFLICT');
      assertSame(await scene.readAll(0), records);
    },
  },
  {
    level: 6,
    name: 'leaves no gap for a forwarder that is ahead of it, and says where it ends',
    needs: 'target',
    run: async (scene) => {
      const { log, to } = await target(scene);
      const records = newRecords(5);
      await log.append(to(0, records.slice(0, 2)));
      const error = await assertRefused(() => log.append(to(4, records.slice(4))), 'APPEND_CONFLICT');
      assert.equal(error.details.end, 2n);
      await log.append(to(2, records.slice(2))); // as after a lost tail: forwarded again from the end
      assertSame(await scene.readAll(0), records);
    },
  },
  {
    level: 6,
    name: 'refuses an append to what does not exist',
    needs: 'target',
    run: async (scene) => {
      const { log, to } = await target(scene);
      const append = to(0, newRecords(1));
      await assertRefused(() => log.append({ ...append, partition: 1 }), 'UNKNOWN_TOPIC');
      await assertRefused(() => log.append({ ...append, topic: `${scene.topic}-none` }), 'UNKNOWN_TOPIC');
      await assertRefused(() => log.createTopic('no topic', 1), 'INVALID_TOPIC');
      await assertRefused(() => log.createTopic(scene.topic, 2), 'INVALID_OPTION');
      await log.createTopic(scene.topic, 1); // it exists: nothing to do
    },
  },
];
