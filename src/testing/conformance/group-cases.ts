import assert from 'node:assert/strict';
import type { Consumer } from '../../consumer/consumer.ts';
import type { CaseDefinition } from './case.ts';
import { counts, GroupScene, keysOf, until } from './group-scene.ts';

const KEYS = keysOf(12);
const PARTITIONS = 6;
const LONG_AWAY_MS = 600_000;

/** The partitions that a member owns. */
function owned(member: Consumer): number[] {
  return member
    .status()
    .assignments.filter(({ state }) => state === 'owned')
    .map(({ partition }) => partition)
    .sort((a, b) => a - b);
}

/** Waits until members own so many partitions each, and all together. */
async function untilShared(members: readonly Consumer[], counted: readonly number[]): Promise<number[][]> {
  await until(`they own ${counted.join(', ')} partitions`, () => {
    const all = members.map(owned);
    return all.every(({ length }, at) => length === counted[at]) && new Set(all.flat()).size === PARTITIONS;
  });
  return members.map(owned);
}

function assertKept(before: readonly number[][], after: readonly number[][]): void {
  for (const [at, partitions] of before.entries()) {
    const kept = partitions.filter((partition) => after[at]?.includes(partition));
    const most = Math.min(partitions.length, after[at]?.length ?? 0);
    assert.equal(kept.length, most, `A member had ${partitions.join(', ')} and has ${String(after[at])}.`);
  }
}

/** Level 3: who owns what. */
export const groupCases: readonly CaseDefinition[] = [
  {
    level: 3,
    name: 'shares its partitions among members, and moves no more than it must when one joins or leaves',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, PARTITIONS);
      const [one, two, three] = ['one', 'two', 'three'].map((name) => groups.member(name)) as [
        Consumer,
        Consumer,
        Consumer,
      ];
      await one.start();
      const alone = await untilShared([one], [6]);
      await two.start();
      const pair = await untilShared([one, two], [3, 3]);
      assertKept(alone, pair);
      await three.start();
      const all = await untilShared([one, two, three], [2, 2, 2]);
      assertKept(pair, all);
      await groups.publish(counts(KEYS, 1, 5));
      await three.stop();
      const left = await untilShared([one, two], [3, 3]);
      assertKept(all.slice(0, 2), left);
      await groups.untilEffects(KEYS.length * 5);
      await groups.assertExact(KEYS, 5);
    },
  },
  {
    level: 3,
    name: 'moves nothing when a static member is started again',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, PARTITIONS);
      const [fixed, other] = [groups.member('fixed', { staticLeaseMs: LONG_AWAY_MS }), groups.member('other')];
      await fixed.start();
      await other.start();
      const before = await untilShared([fixed, other], [3, 3]);
      const epochs = other.status().assignments.map(({ epoch }) => epoch);
      await fixed.stop();
      await groups.publish(counts(KEYS, 1, 3));
      const again = groups.member('fixed', { staticLeaseMs: LONG_AWAY_MS });
      await again.start();
      assert.deepEqual(await untilShared([again, other], [3, 3]), before);
      assert.deepEqual(
        other.status().assignments.map(({ epoch }) => epoch),
        epochs,
      );
      await groups.untilEffects(KEYS.length * 3);
      await groups.assertExact(KEYS, 3);
    },
  },
  {
    level: 3,
    name: 'goes on where it was when all its members have left and one comes back',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, PARTITIONS);
      const first = groups.member('first');
      await first.start();
      await groups.publish(counts(KEYS, 1, 5));
      await groups.untilEffects(KEYS.length * 5);
      await first.stop();
      await groups.publish(counts(KEYS, 6, 8));
      const second = groups.member('second');
      await second.start();
      await groups.untilEffects(KEYS.length * 8);
      await groups.assertExact(KEYS, 8);
      assert.equal(second.status().duplicates, 0, 'It was given again what had been stored as done.');
    },
  },
];
