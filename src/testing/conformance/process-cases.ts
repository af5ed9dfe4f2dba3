import assert from 'node:assert/strict';
import type { LogRecord } from '../../broker/record.ts';
import type { CaseDefinition } from './case.ts';
import { LONG_LEASE_MS } from './counting-member.ts';
import { counts, GroupScene, keysOf, SHORT_LEASE_MS, until } from './group-scene.ts';
import { OtherProcess } from './other-process.ts';
import type { FedRecord } from './process-messages.ts';
import { idsOf, newRecord, type Scene } from './scene.ts';

const KEYS = keysOf(12);
const PARTITIONS = 6;
const LONG_AWAY_MS = 600_000;

/** Of a member that is to be missed soon; a machine has to be slow to lose it otherwise. */
const KILLED_LEASE_MS = 3_000;
/** What the others may take beyond the lease. */
const TAKEOVER_MS = 1_000;
/** A machine may be busy with something else at the wrong moment, but not each time. */
const TRIES = 5;

/** Each partition and its epoch, of each member. */
type Shares = readonly ReadonlyMap<number, string>[];

async function sharesOf(members: readonly OtherProcess[]): Promise<Shares> {
  const all = await Promise.all(members.map((member) => member.status()));
  return all.map(({ owned }) => new Map(owned.map(({ partition, epoch }) => [partition, epoch])));
}

/** Waits until members own so many partitions each, and all together. */
async function untilShared(members: readonly OtherProcess[], counted: readonly number[]): Promise<Shares> {
  let shares: Shares = [];
  await until(`they own ${counted.join(', ')} partitions`, async () => {
    shares = await sharesOf(members);
    const all = new Set(shares.flatMap((share) => [...share.keys()]));
    return shares.every(({ size }, at) => size === counted[at]) && all.size === PARTITIONS;
  });
  return shares;
}

/** Nothing was taken from who had no more than its share. */
function assertKept(before: Shares, after: Shares): void {
  for (const [at, share] of before.entries()) {
    const lost = [...share].filter(([partition, epoch]) => after[at]?.get(partition) !== epoch);
    assert.deepEqual(lost, [], `Member ${at} lost partitions, or had to take them again, that nobody else needed.`);
  }
}

/** Kills a member without a word; how long it took until the others had all partitions, in milliseconds. */
async function takeoverMs(groups: GroupScene, others: readonly OtherProcess[], name: string): Promise<number> {
  const victim = await groups.process(name, { leaseMs: KILLED_LEASE_MS });
  const before = await untilShared([...others, victim], [2, 2, 2]);
  await victim.kill();
  const killedAtMs = performance.now();
  const after = await untilShared(others, [3, 3]);
  const tookMs = performance.now() - killedAtMs;
  assertKept(before.slice(0, others.length), after);
  return tookMs;
}

/** Records of one feeder, each with a key of its own. */
function fedRecords(feeder: string, count: number): FedRecord[] {
  return Array.from({ length: count }, (_, n) => {
    const { messageId, type, payload } = newRecord();
    return { messageId, type, key: `${feeder} ${n}`, payload: payload ?? 'null' };
  });
}

/** Feeds until so many were acknowledged, and kills it with more under way. */
async function feedUntilKilled(scene: Scene, records: readonly FedRecord[], kill: number): Promise<number> {
  const feeder = await OtherProcess.start(scene);
  let killed: Promise<void> | undefined;
  const feed = { topic: scene.topic, partition: 0, records, batch: 3 };
  const ended = feeder.feed(feed, (count) => {
    if (count >= kill) killed ??= feeder.kill();
  });
  await ended.catch((error: unknown) => {
    if (killed === undefined) throw error;
  });
  await killed;
  return feeder.appended;
}

/** A record that a feeder appends before all else: behind it, nothing of a former one can come. */
const boundary = (): FedRecord => ({
  messageId: newRecord().messageId,
  type: 'Boundary',
  key: 'boundary',
  payload: '{}',
});

/** Another process goes on for one that was killed, with what the log has not got of these. */
async function goOnFeeding(scene: Scene, records: readonly FedRecord[]): Promise<LogRecord[]> {
  const heir = await OtherProcess.start(scene);
  const { topic } = scene;
  await heir.feed({ topic, partition: 0, records: [boundary()], batch: 1 });
  const present = (await scene.readAll(0)).filter(({ type }) => type !== 'Boundary');
  await heir.feed({ topic, partition: 0, records: records.slice(present.length), batch: 3 });
  await heir.stop();
  return present;
}

const isFedBy =
  (feeder: string) =>
  ({ key }: LogRecord): boolean =>
    key?.startsWith(`${feeder} `) ?? false;

/** What has to hold when processes stop, are killed, and come back. */
export const processCases: readonly CaseDefinition[] = [
  {
    level: 2,
    name: 'keeps the order of each key when processes are killed in the middle of their transactions',
    needs: 'processes',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 3);
      for (let round = 0; round < 2; round++) {
        await groups.publish(counts(KEYS, round * 6 + 1, round * 6 + 6));
        const victim = await groups.process(`victim ${round}`, { leaseMs: SHORT_LEASE_MS, stayFrom: round * 6 + 3 });
        await victim.inside;
        const heir = await groups.process(`heir ${round}`);
        await victim.kill();
        await groups.untilEffects(KEYS.length * (round + 1) * 6);
        await heir.stop();
      }
      await groups.assertExact(KEYS, 12);
    },
  },
  {
    level: 2,
    name: 'keeps the order of each key when the process that feeds it is killed',
    needs: 'processes',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 1);
      const all = counts(KEYS, 1, 10).map((count) => {
        const { messageId, type } = newRecord();
        return { messageId, type, key: count.key, payload: JSON.stringify(count) };
      });
      await groups.member('reader').start();
      await feedUntilKilled(scene, all, 30);
      await goOnFeeding(scene, all);
      await groups.untilEffects(all.length);
      await groups.assertExact(KEYS, 10);
    },
  },
  {
    level: 3,
    name: 'gives the partitions of a process that was killed to the others once its lease is over, and moves no others',
    needs: 'processes',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, PARTITIONS);
      const others = [await groups.process('one'), await groups.process('two')];
      await untilShared(others, [3, 3]);
      const took: number[] = [];
      while (took.length < TRIES && Math.min(...took) > KILLED_LEASE_MS + TAKEOVER_MS)
        took.push(await takeoverMs(groups, others, `victim ${took.length}`));
      const leastMs = Math.min(...took);
      assert.ok(
        leastMs <= KILLED_LEASE_MS + TAKEOVER_MS,
        `Partitions were without an owner for ${Math.round(leastMs)} ms at least; expected ${KILLED_LEASE_MS} ms, the lease, and up to ${TAKEOVER_MS} ms.`,
      );
      await groups.publish(counts(KEYS, 1, 3));
      await groups.untilEffects(KEYS.length * 3);
      await groups.assertExact(KEYS, 3);
    },
  },
  {
    level: 3,
    name: 'refuses what a process commits that was stopped until its lease was over',
    needs: 'processes',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, PARTITIONS);
      await groups.publish(counts(KEYS, 1, 5));
      const stopped = { leaseMs: SHORT_LEASE_MS, handlerIdleMs: LONG_LEASE_MS, stayFrom: 3 };
      const zombie = await groups.process('zombie', stopped);
      await zombie.inside;
      zombie.pause();
      const heir = await groups.process('heir');
      await untilShared([heir], [PARTITIONS]);
      zombie.goOn(); // it hears that first when it wakes up, and commits
      zombie.resume();
      await groups.untilEffects(KEYS.length * 5);
      await groups.assertExact(KEYS, 5);
      const late = (await groups.effects()).filter(({ member }) => member === 'zombie, staying');
      assert.deepEqual(late, [], 'What it committed, when its partitions were another one’s, was taken.');
    },
  },
  {
    level: 3,
    name: 'moves nothing when the process of a static member is killed and started again',
    needs: 'processes',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, PARTITIONS);
      const fixed = await groups.process('fixed', { staticLeaseMs: LONG_AWAY_MS });
      const other = await groups.process('other');
      const before = await untilShared([fixed, other], [3, 3]);
      await fixed.kill();
      await groups.publish(counts(KEYS, 1, 3));
      const again = await groups.process('fixed', { staticLeaseMs: LONG_AWAY_MS });
      const after = await untilShared([again, other], [3, 3]);
      assert.deepEqual(
        after.map((share) => [...share.keys()].sort()),
        before.map((share) => [...share.keys()].sort()),
      );
      assertKept(before.slice(1), after.slice(1));
      await groups.untilEffects(KEYS.length * 3);
      await groups.assertExact(KEYS, 3);
    },
  },
  {
    level: 6,
    name: 'has what a process appended that was killed once, in its order, and all that was acknowledged',
    needs: 'processes',
    run: async (scene) => {
      await scene.createTopic(1);
      const records = fedRecords('fed', 90);
      const acknowledged = await feedUntilKilled(scene, records, 30);
      const present = await goOnFeeding(scene, records);
      assert.ok(present.length >= acknowledged, `${acknowledged} were acknowledged, and ${present.length} are there.`);
      const all = (await scene.readAll(0)).filter(({ type }) => type !== 'Boundary');
      assert.deepEqual(idsOf(all), idsOf(records), 'Records are missing, twice there, or in another order.');
    },
  },
  {
    level: 6,
    name: 'takes from two processes that append at once each record once and in the order of its process',
    needs: 'processes',
    run: async (scene) => {
      await scene.createTopic(1);
      const names = ['one', 'two'];
      const feeds = names.map((name) => fedRecords(name, 60));
      const feeders = await Promise.all(names.map(() => OtherProcess.start(scene)));
      const work = feeders.map(async (feeder, at) => {
        await feeder.feed({ topic: scene.topic, partition: 0, records: feeds[at] ?? [], batch: 3 });
        await feeder.stop(); // where one at a time may append, the other one waits for that
      });
      await Promise.all(work);
      const all = await scene.readAll(0);
      for (const [at, name] of names.entries())
        assert.deepEqual(
          idsOf(all.filter(isFedBy(name))),
          idsOf(feeds[at] ?? []),
          `Of ${name}, other records are there.`,
        );
      assert.equal(all.length, 120);
    },
  },
];
