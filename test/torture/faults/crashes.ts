import { pause } from '../../../src/base/signal.ts';
import { CONSUMER_POINTS } from '../groups.ts';
import type { FailAction } from '../fail-points.ts';
import type { Fault } from '../fault.ts';
import type { Child } from '../child.ts';
import type { Random } from '../random.ts';
import { LEASE_MS, PATIENCE_MS, type Stage } from '../stage.ts';
import { WRITER_POINTS } from '../transactions.ts';
import { waitUntil } from '../wait-until.ts';
import { RELAY_POINTS } from '../watched-ports.ts';
import { GROUP_POINTS, RENEWAL_POINTS, TAKEOVER_POINTS } from '../watched-statements.ts';

/** Processes that are killed, or stopped for longer than their lease. */
export const CRASHES: readonly Fault[] = [
  {
    name: 'relay-kill',
    what: 'the relay that leads is killed with SIGKILL at any moment',
    always: true,
    async inject(stage, random) {
      const leader = await stage.someLeader();
      await pause(random.whole(0, 50));
      await stage.killAndStart(leader);
      return true;
    },
  },
  {
    name: 'relay-crash-point',
    what: 'the relay that leads dies at a certain step, between reading and acknowledging',
    always: true,
    async inject(stage, random) {
      let struck = 0;
      for (const point of random.shuffled(RELAY_POINTS).slice(0, 2)) {
        const isOpening = /^(acquire|open)/.test(point);
        const struckRelay = await (isOpening ? strikeNext : strikeNow)(stage, point, 'kill');
        if (struckRelay === undefined) return false;
        struck += 1;
        await stage.start(struckRelay.name);
      }
      return struck > 0;
    },
  },
  {
    name: 'lease-renewal',
    what: 'the relay that leads is killed, or stopped until another one leads, while it renews its lease',
    async inject(stage, random) {
      const action = random.pick(['kill', 'stop'] as const);
      const struck = await strikeNow(stage, random.pick(RENEWAL_POINTS), action);
      return struck !== undefined && goOn(stage, struck, action);
    },
  },
  {
    name: 'lease-takeover',
    what: 'a relay is killed, or stopped until another one leads, while it takes the lease over',
    async inject(stage, random) {
      const action = random.pick(['kill', 'stop'] as const);
      const struck = await strikeNext(stage, random.pick(TAKEOVER_POINTS), action);
      return struck !== undefined && goOn(stage, struck, action);
    },
  },
  {
    name: 'relay-freeze',
    what: 'the relay that leads is stopped for longer than its lease, and goes on when another one leads',
    async inject(stage, random) {
      const leader = await stage.someLeader();
      await pause(random.whole(0, 50));
      leader.freeze();
      const taken = await stage.takenFrom(leader.name);
      await pause(random.whole(0, LEASE_MS));
      leader.thaw();
      return taken;
    },
  },
  {
    name: 'relay-freeze-append',
    what: 'the relay that leads is stopped between looking at its lease and appending, until another one leads',
    always: true,
    async inject(stage, random) {
      const point = random.pick(['append.before', 'checkpoint.before']);
      const stopped = await stage.strikeLeader({ point, action: 'stop', after: random.whole(1, 3) });
      if (stopped === undefined) return false;
      const taken = await stage.takenFrom(stopped.name);
      stopped.thaw();
      return taken;
    },
  },
  {
    name: 'consumer-kill',
    what: 'a consumer is killed with SIGKILL at a step of its transaction or of its membership, or at any moment',
    async inject(stage, random) {
      const consumer = random.pick(stage.consumers);
      const point = random.pick([...CONSUMER_POINTS, ...GROUP_POINTS, 'anywhere']);
      if (point === 'anywhere') {
        await stage.killAndStart(consumer);
        return true;
      }
      const struck = await stage.strike(consumer, { point, action: 'kill', after: random.whole(1, 20) });
      if (!struck) await consumer.kill();
      await stage.start(consumer.name);
      return struck;
    },
  },
  {
    name: 'consumer-kill-lagging',
    what: 'a consumer that has much to catch up with is killed with SIGKILL just after it has stored how far its partitions are handled',
    inject: killLagging,
  },
  {
    name: 'consumer-freeze',
    what: 'a consumer is stopped in a handler for longer than its lease, and goes on when others have its partitions',
    inject: (stage, random) => freezeConsumer(stage, random, random.pick(CONSUMER_POINTS)),
  },
  {
    name: 'consumer-freeze-commit',
    what: 'a consumer is stopped between looking at its lease and committing, and goes on when others have its partitions',
    inject: (stage, random) => freezeConsumer(stage, random, 'handler.commit.before'),
  },
  {
    name: 'consumer-blocked',
    what: 'a handler blocks its process’s event loop for 12 s, several times the lease, and goes on when others have its partitions',
    slow: true,
    async inject(stage, random) {
      const consumer = random.pick(stage.consumers);
      consumer.send({ point: random.pick(CONSUMER_POINTS), action: 'block', after: random.whole(1, 20) });
      return waitUntil(() => stage.ownsNothing(consumer.name), PATIENCE_MS, stage.stop);
    },
  },
  {
    name: 'writer-kill',
    what: 'a writer is killed with SIGKILL at a step of its transaction, COMMIT under way among them',
    async inject(stage, random) {
      const writer = random.pick(stage.writers);
      const point = random.pick(WRITER_POINTS);
      const struck = await stage.strike(writer, { point, action: 'kill', after: random.whole(1, 5) });
      if (!struck) await writer.kill();
      await stage.start(writer.name);
      return struck;
    },
  },
];

const MUCH = 1_500;

/** All consumers are ended first, so that messages wait. */
async function killLagging(stage: Stage, random: Random): Promise<boolean> {
  const consumers = stage.consumers;
  for (const consumer of consumers) await stage.end(consumer);
  const isMuch = async (): Promise<boolean> => (await stage.waiting()) >= MUCH;
  await stage.rush(stage.perSecond, () => waitUntil(isMuch, PATIENCE_MS, stage.stop));
  const [first, ...others] = random.shuffled(consumers.map(({ name }) => name));
  if (first === undefined) return false;
  const consumer = await stage.start(first);
  const struck = await stage.strike(consumer, { point: 'partition.advance.after', action: 'kill', after: 1 });
  if (!struck) await consumer.kill();
  for (const name of [first, ...others]) await stage.start(name);
  return struck;
}

function strikeNow(stage: Stage, point: string, action: FailAction): Promise<Child | undefined> {
  return stage.strikeLeader({ point, action, after: 1 });
}

/** At a point that a relay passes only when it begins to lead: the one that leads makes room. */
async function strikeNext(stage: Stage, point: string, action: FailAction): Promise<Child | undefined> {
  const leader = await stage.someLeader();
  const next = stage.relays.find((relay) => relay !== leader);
  if (next === undefined) return undefined;
  const striking = stage.strike(next, { point, action, after: 1 });
  stage.watchMemory();
  await leader.kill();
  const struck = await striking;
  await stage.start(leader.name);
  return struck ? next : undefined;
}

/** Killed, it is started again; stopped, it goes on when another one leads. */
async function goOn(stage: Stage, struck: Child, action: FailAction): Promise<boolean> {
  if (action === 'kill') {
    await stage.start(struck.name);
    return true;
  }
  const taken = await stage.takenFrom(struck.name);
  struck.thaw();
  return taken;
}

/** Until others have its partitions. */
async function freezeConsumer(stage: Stage, random: Random, point: string): Promise<boolean> {
  const consumer = random.pick(stage.consumers);
  const struck = await stage.strike(consumer, { point, action: 'stop', after: random.whole(1, 20) });
  const taken = struck && (await waitUntil(() => stage.ownsNothing(consumer.name), PATIENCE_MS, stage.stop));
  consumer.thaw();
  return taken;
}
