import type { CaseDefinition } from './case.ts';
import type { Count } from './counting-member.ts';
import { counts, GroupScene, keysOf, SHORT_LEASE_MS, until } from './group-scene.ts';

const KEYS = keysOf(8);

/** Level 2: the effects of a key come in the order of its messages, whatever happens. */
export const orderCases: readonly CaseDefinition[] = [
  {
    level: 2,
    name: 'keeps the order of each key while keys run at once and handlers fail',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 3);
      const failNowAndThen = (): void => {
        if (scene.random() < 0.2) throw new Error('Not now.');
      };
      await groups.publish(counts(KEYS, 1, 15));
      await groups.member('one', { concurrency: 8, then: failNowAndThen }).start();
      await groups.publish(counts(KEYS, 16, 20));
      await groups.untilEffects(160);
      await groups.assertExact(KEYS, 20);
    },
  },
  {
    level: 2,
    name: 'lets the other keys go on while one fails',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 1);
      const [stuck = '', ...others] = KEYS;
      let isMended = false;
      const failOne = ({ key, n }: Count): void => {
        if (key === stuck && n === 2 && !isMended) throw new Error('Not yet.');
      };
      await groups.publish(counts(KEYS, 1, 6));
      await groups.member('one', { then: failOne }).start();
      await groups.untilEffects(others.length * 6 + 1);
      isMended = true;
      await groups.untilEffects(KEYS.length * 6);
      await groups.assertExact(KEYS, 6);
      const effects = await groups.effects();
      const firstOfStuck = effects.findIndex(({ key, n }) => key === stuck && n === 2);
      const lastOfOthers = effects.findLastIndex(({ key }) => key !== stuck);
      if (firstOfStuck < lastOfOthers) throw new Error('The other keys waited for the one that failed.');
    },
  },
  {
    level: 2,
    name: 'blocks only its own key with a record that is parked, and keeps the order of that key',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 1);
      const [stuck = '', ...others] = KEYS;
      let isMended = false;
      const failOne = ({ key, n }: Count): void => {
        if (key === stuck && n === 2 && !isMended) throw new Error('Not yet.');
      };
      await groups.publish(counts(KEYS, 1, 4));
      const retries = { attempts: 1, delayed: { attempts: 1_000, initialMs: 200, maxMs: 200 } };
      const first = groups.member('first', { then: failOne, retries });
      await first.start();
      await groups.untilEffects(others.length * 4 + 1);
      await until('the later records of the key are parked too', async () => (await groups.parked()) >= 3);
      await first.stop();
      await groups.member('second', { then: failOne, retries }).start(); // another one takes the parked key over
      await groups.publish(counts(KEYS, 5, 6));
      await groups.untilEffects(others.length * 6 + 1);
      isMended = true;
      await groups.untilEffects(KEYS.length * 6);
      await groups.assertExact(KEYS, 6);
    },
  },
  {
    level: 2,
    name: 'keeps the order of each key while members come and go',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 4);
      await groups.member('lasting').start();
      for (let round = 0; round < 3; round++) {
        await groups.publish(counts(KEYS, round * 10 + 1, round * 10 + 5));
        const passing = groups.member(`passing ${round}`);
        await passing.start();
        await until('it has partitions', () => passing.status().assignments.length > 0);
        await groups.publish(counts(KEYS, round * 10 + 6, round * 10 + 10));
        await passing.stop();
      }
      await groups.untilEffects(KEYS.length * 30);
      await groups.assertExact(KEYS, 30);
    },
  },
  {
    level: 2,
    name: 'keeps the order of each key when what was handled is handed over again',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 2);
      const line = groups.line();
      await groups.publish(counts(KEYS, 1, 5));
      const forgetful = { database: line, leaseMs: SHORT_LEASE_MS, cursorIntervalMs: 3_600_000 };
      await groups.member('forgetful', forgetful).start();
      await groups.untilEffects(40);
      await line.cut(); // its place was never stored
      await groups.publish(counts(KEYS, 6, 10));
      const heir = groups.member('heir', { leaseMs: SHORT_LEASE_MS });
      await heir.start();
      await groups.untilEffects(80);
      await groups.assertExact(KEYS, 10);
      await until('it was given again what was handled', () => heir.status().duplicates >= 40);
      line.mend();
    },
  },
  {
    level: 2,
    name: 'keeps the order of each key when a member is cut off in the middle of a transaction',
    run: async (scene) => {
      const groups = await GroupScene.open(scene, 3);
      await groups.member('survivor', { leaseMs: SHORT_LEASE_MS }).start();
      const line = groups.line();
      const inside = { hasBeen: false };
      const stay = (_: Count, { signal }: { readonly signal: AbortSignal }): Promise<void> => {
        if (inside.hasBeen) return Promise.resolve();
        inside.hasBeen = true;
        return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      };
      const victim = groups.member('victim', { database: line, leaseMs: SHORT_LEASE_MS, then: stay });
      await victim.start();
      await until('it has a partition', () => victim.status().assignments.length > 0);
      let published = 0;
      while (!inside.hasBeen) {
        await groups.publish(counts(KEYS, published + 1, published + 5));
        published += 5;
        const all = KEYS.length * published;
        await until('somebody has it', async () => inside.hasBeen || (await groups.effects()).length >= all);
      }
      await line.cut();
      await groups.untilEffects(KEYS.length * published);
      line.mend();
      await groups.publish(counts(KEYS, published + 1, published + 5));
      published += 5;
      await groups.untilEffects(KEYS.length * published);
      await groups.assertExact(KEYS, published);
    },
  },
];
