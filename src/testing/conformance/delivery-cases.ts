import assert from 'node:assert/strict';
import type { NewRecord } from '../../broker/record.ts';
import type { HandlerContext } from '../../consumer/handlers.ts';
import { newRecord, plain, type Scene } from './scene.ts';
import type { CaseDefinition } from './case.ts';
import type { Count } from './counting-member.ts';
import { LogPath } from './log-path.ts';
import { counts, GroupScene, keysOf, SHORT_LEASE_MS, until } from './group-scene.ts';

const KEYS = keysOf(6);

/** Resolves when it is told to, and fails when the handler is to give up. */
function gate(): { readonly open: () => void; readonly pass: (signal: AbortSignal) => Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  return {
    open: () => resolve(undefined),
    pass: (signal) =>
      Promise.race([
        promise,
        new Promise<never>((_, reject) => {
          signal.addEventListener('abort', () => reject(new Error('The handler was told to give up.')), { once: true });
        }),
      ]),
  };
}

/**
 * What handlers without a transaction were called with, in a group of which a member was cut off from the database while its
 * handlers ran. Resolves once the group has come to what was published after that.
 */
async function callsThroughLoss(scene: Scene, delivery: 'at-least-once' | 'at-most-once'): Promise<string[]> {
  const groups = await GroupScene.open(scene, 2);
  const line = groups.line();
  const calls: string[] = [];
  const begun = Promise.withResolvers<undefined>();
  const cut = Promise.withResolvers<undefined>();
  await groups.publish(counts(KEYS, 1, 6));
  const lost = groups.plainMember('lost', { delivery, leaseMs: SHORT_LEASE_MS, database: line }, async ({ key, n }) => {
    calls.push(`${key} ${n}`);
    if (n < 3) return;
    begun.resolve(undefined);
    await cut.promise;
  });
  await lost.start();
  await begun.promise;
  await line.cut();
  cut.resolve(undefined);
  await groups.publish(counts(KEYS, 7, 8));
  const heir = groups.plainMember('heir', { delivery }, ({ key, n }) => void calls.push(`${key} ${n}`));
  await heir.start();
  await until('all keys are at their last message', () => KEYS.every((key) => calls.includes(`${key} 8`)));
  return calls;
}

/** Level 1: what becomes of a message that is handed to a group. */
export const deliveryCases: readonly CaseDefinition[] = [
  {
    level: 1,
    name: 'hands every message to every group once, and nothing again to a member that comes later',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 3);
      await groups.publish(counts(KEYS, 1, 10));
      const others = `${scene.topic}-others`;
      const first = groups.member('first');
      await first.start();
      await groups.member('of others', { group: others }).start();
      for (const group of [undefined, others]) await groups.untilEffects(60, group);
      await first.stop();
      await groups.publish(counts(KEYS, 11, 12));
      await groups.member('second').start();
      for (const group of [undefined, others]) await groups.untilEffects(72, group);
      for (const group of [undefined, others]) await groups.assertExact(KEYS, 12, group);
    },
  },
  {
    level: 1,
    name: 'undoes what a handler that threw has written, and hands its message over again',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 2);
      const attempts = new Map<string, number[]>();
      const failTwice = ({ key, n }: Count, { attempt }: { readonly attempt: number }): void => {
        const name = `${key} ${n}`;
        attempts.set(name, [...(attempts.get(name) ?? []), attempt]);
        if (n % 3 === 0 && attempt <= 2) throw new Error('Not yet.');
      };
      await groups.publish(counts(KEYS, 1, 6));
      await groups.member('one', { then: failTwice }).start();
      await groups.untilEffects(36);
      await groups.assertExact(KEYS, 6);
      for (const key of KEYS) assert.deepEqual(attempts.get(`${key} 3`), [1, 2, 3]);
    },
  },
  {
    level: 1,
    name: 'sets a message aside whole, with its place and its last error, once its attempts are used up, and goes on',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 1);
      const [first, bad] = await groups.publish(counts(['a'], 1, 2));
      await groups.publish(counts(['b'], 1, 2));
      const refuse = ({ key, n }: Count): void => {
        if (key === 'a' && n === 2) throw new Error('No: this one never.');
      };
      await groups.member('one', { then: refuse, retries: { attempts: 3, backoff: { initialMs: 1 } } }).start();
      await until('it is a dead letter', async () => (await groups.deadLetters()).length > 0);
      await groups.untilEffects(3);
      const [letter, ...others] = await groups.deadLetters();
      assert.deepEqual(others, []);
      assert.equal(letter?.messageId, bad?.messageId);
      assert.equal(letter?.offset, 1n);
      assert.equal(letter.attempts, 3);
      assert.deepEqual(letter.payload, { key: 'a', n: 2 });
      assert.match(letter.error ?? '', /No: this one never\./);
      const effects = (await groups.effects()).map(({ key, n }) => `${key} ${n}`).sort();
      assert.deepEqual(effects, ['a 1', 'b 1', 'b 2']);
      assert.ok(first !== undefined && plain(first).messageId !== letter.messageId);
    },
  },
  {
    level: 1,
    name: 'hands over nothing before its deliverAt, and nothing after its expiresAt',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 1);
      const deliverAt = new Date(Date.now() + 700);
      const record = ({ key, n }: Count, times: Partial<NewRecord>): NewRecord =>
        newRecord({ key, payload: JSON.stringify({ key, n }), ...times });
      const expired = record({ key: 'expired', n: 1 }, { expiresAt: new Date(Date.now() - 60_000) });
      await groups.append([
        record({ key: 'delayed', n: 1 }, { deliverAt }),
        expired,
        record({ key: 'fresh', n: 1 }, { expiresAt: new Date(Date.now() + 3_600_000) }),
      ]);
      const early: string[] = [];
      const check = async ({ key }: Count, { tx }: HandlerContext): Promise<void> => {
        const { rows } = await tx.query<{ early: boolean }>('select clock_timestamp() < $1::timestamptz as early', [
          deliverAt.toISOString(),
        ]);
        if (rows[0]?.early === true) early.push(key);
      };
      await groups.member('one', { then: check }).start();
      await groups.untilEffects(2);
      await until('what has expired is a dead letter', async () => (await groups.deadLetters()).length > 0);
      const [letter, ...others] = await groups.deadLetters();
      assert.deepEqual([letter?.messageId, letter?.reason, others.length], [expired.messageId, 'EXPIRED', 0]);
      await groups.assertExact(['delayed', 'fresh'], 1);
      assert.ok(!early.includes('delayed'), 'It was handed over before its time.');
    },
  },
  {
    level: 1,
    name: 'handles once a message that was appended twice',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 1);
      const records = await groups.publish(counts(['a', 'b'], 1, 2));
      await scene.append(0, records);
      const one = groups.member('one');
      await groups.publish(counts(['a', 'b'], 3, 3));
      await one.start();
      await groups.untilEffects(6);
      await until('it has seen all', () => one.status().duplicates >= 4);
      await groups.assertExact(['a', 'b'], 3);
    },
  },
  {
    level: 1,
    name: 'hands over no message twice where at most once is asked for, though a member is lost',
    run: async (scene) => {
      const calls = await callsThroughLoss(scene, 'at-most-once');
      assert.deepEqual([...new Set(calls)], calls);
    },
  },
  {
    level: 1,
    name: 'hands over every message where at least once is asked for, though a member is lost',
    run: async (scene) => {
      const calls = new Set(await callsThroughLoss(scene, 'at-least-once'));
      assert.deepEqual(
        [...calls].sort(),
        counts(KEYS, 1, 8)
          .map(({ key, n }) => `${key} ${n}`)
          .sort(),
      );
    },
  },
  {
    level: 1,
    name: 'handles what was stored first, once and in order, though the log and the member that stored it are gone',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 2);
      const line = groups.line();
      const begun = Promise.withResolvers<undefined>();
      const { pass } = gate();
      const hold = async (_: Count, { signal }: { readonly signal: AbortSignal }): Promise<void> => {
        begun.resolve(undefined);
        await pass(signal);
      };
      const path = new LogPath(scene.log);
      const common = { log: path, delivery: 'store-first', leaseMs: SHORT_LEASE_MS } as const;
      await groups.publish(counts(KEYS, 1, 5));
      await groups.member('lost', { ...common, database: line, then: hold }).start();
      await begun.promise;
      await until('all is stored', async () => (await groups.stored()) === 30);
      path.isOpen = false;
      await line.cut();
      await groups.member('heir', common).start();
      await groups.untilEffects(30);
      path.isOpen = true;
      await groups.publish(counts(KEYS, 6, 7));
      await groups.untilEffects(42);
      await groups.assertExact(KEYS, 7);
    },
  },
  {
    level: 1,
    name: 'begins where startFrom says',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 2);
      await groups.publish(counts(KEYS, 1, 1));
      const late = `${scene.topic}-late`;
      const latest = groups.member('latest', { startFrom: 'latest', group: late });
      await latest.start();
      await groups.publish(counts(KEYS, 2, 2));
      await groups.member('earliest').start();
      await groups.untilEffects(12);
      await groups.assertExact(KEYS, 2);
      await groups.untilEffects(6, late);
      assert.deepEqual(new Set((await groups.effects(late)).map(({ n }) => n)), new Set([2]));
    },
  },
  {
    level: 1,
    name: 'hands on what a member had when its lease ran out, and takes nothing from that member any more',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 2);
      const line = groups.line();
      const begun = Promise.withResolvers<undefined>();
      const { open, pass } = gate();
      const hold = async ({ n }: Count, { signal }: { readonly signal: AbortSignal }): Promise<void> => {
        if (n !== 3) return;
        begun.resolve(undefined);
        await pass(signal);
      };
      await groups.publish(counts(KEYS, 1, 5));
      await groups.member('lost', { database: line, leaseMs: SHORT_LEASE_MS, then: hold }).start();
      await begun.promise;
      await line.cut();
      await groups.member('heir', { leaseMs: SHORT_LEASE_MS }).start();
      await groups.untilEffects(30);
      open();
      line.mend(); // it comes back, and knows nothing
      await groups.publish(counts(KEYS, 6, 7));
      await groups.untilEffects(42);
      await groups.assertExact(KEYS, 7);
    },
  },
];
