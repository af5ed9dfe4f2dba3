import { Bridge } from '../bridge.ts';
import { Cable, type Cut } from '../cable.ts';
import { pause } from '../../../src/base/signal.ts';
import type { Fault } from '../fault.ts';
import type { Random } from '../random.ts';
import { LEASE_MS, PATIENCE_MS, type Stage } from '../stage.ts';
import { waitUntil } from '../wait-until.ts';

/** Networks that lose packets: the relay that leads is in a network namespace, with a cable to the server. */
export const PARTITIONS: readonly Fault[] = [
  {
    name: 'network-partition',
    what: 'the relay that leads is in a network namespace whose packets are dropped both ways until another one leads; then it leads again',
    missing: () => Cable.missing(),
    inject: (stage, random) => partition(stage, random, 'both ways'),
  },
  {
    name: 'network-one-way',
    what: 'the same with packets dropped one way only: on the way out, or on the way in',
    missing: () => Cable.missing(),
    inject: (stage, random) => partition(stage, random, random.pick(['on the way out', 'on the way in'])),
  },
];

async function partition(stage: Stage, random: Random, how: Cut): Promise<boolean | (() => Promise<boolean>)> {
  const relay = random.pick(stage.relays);
  const { name } = relay;
  const cable = stage.keep(await Cable.lay());
  const bridge = stage.keep(await Bridge.build(cable, stage.networkOf(name).socketPath));
  const goBack = async (): Promise<void> => {
    stage.setWay(name);
    for (const each of stage.relays) if (each.name === name) await stage.restart(each);
    await bridge[Symbol.asyncDispose]();
    await cable[Symbol.asyncDispose]();
  };
  stage.setWay(name, { databaseUrl: bridge.urlOf(stage.cluster.url), prefix: [...cable.enter, cable.near] });
  await stage.restart(relay);
  if (!(await leads(stage, name))) {
    await goBack();
    return false;
  }
  stage.history.write('partition', 'invoke', { name, how });
  await cable.cut(how);
  const taken = await stage.takenFrom(name);
  await pause(random.whole(0, 2 * LEASE_MS), stage.stop);
  const dropped = await cable.dropped();
  await cable.mend();
  stage.history.write('partition', 'ok', { name, how, dropped });
  return async () => {
    const isBack = await leads(stage, name);
    if (!isBack) stage.stalls.push(`${name} did not lead again when its network was whole again`);
    await goBack();
    return taken && isBack && dropped > 0;
  };
}

/** Lets this relay lead: the others make room. Returns whether it does. */
async function leads(stage: Stage, name: string): Promise<boolean> {
  const others = stage.relays.filter((relay) => relay.name !== name);
  await Promise.all(others.map((relay) => stage.end(relay)));
  const isLeading = await waitUntil(async () => (await stage.leader())?.name === name, PATIENCE_MS, stage.stop);
  await Promise.all(others.map((relay) => stage.start(relay.name)));
  return isLeading;
}
