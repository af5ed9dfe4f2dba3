import { pause } from '../../../src/base/signal.ts';
import { askForMode, readRelayStanding } from '../../../src/broker/postgres/ask.ts';
import type { RelayMode } from '../../../src/broker/log.ts';
import { closeClient, openClient } from '../../../src/postgres/connection.ts';
import type { Fault } from '../fault.ts';
import { MOST_WAITING } from '../pacer.ts';
import type { Random } from '../random.ts';
import { LEASE_MS, PATIENCE_MS, type Stage } from '../stage.ts';
import { waitUntil } from '../wait-until.ts';

/** Relays that are switched, that race, and whose network is bad. */
export const RELAYS: readonly Fault[] = [
  {
    name: 'mode-switch',
    what: 'the relays are stopped and started in polling mode, and back in WAL mode, in good order or by SIGKILL',
    async inject(stage, random) {
      for (let n = 0; n < 2; n++) {
        await switchTo(stage, 'polling', random.chance(0.5));
        await pause(random.whole(300, 1_200), stage.stop);
        await switchTo(stage, 'wal', random.chance(0.5));
        await pause(random.whole(300, 1_200), stage.stop);
      }
      return true;
    },
  },
  {
    name: 'mode-switch-often',
    what: 'the same, 20 times each way',
    slow: true,
    async inject(stage, random) {
      for (let n = 0; n < 20; n++) {
        await switchTo(stage, 'polling', random.chance(0.5));
        await pause(random.whole(0, 500), stage.stop);
        await switchTo(stage, 'wal', random.chance(0.5));
        await pause(random.whole(0, 500), stage.stop);
      }
      return true;
    },
  },
  {
    name: 'mode-switch-load',
    what: 'an operator asks for polling and for the WAL, 20 times each, while the writers try 2,000 transactions a second',
    slow: true,
    inject: switchUnderLoad,
  },
  {
    name: 'five-relays',
    what: 'five relays race for the lease, and the one that leads is killed three times',
    async inject(stage, random) {
      const extra = await stage.startExtraRelays();
      for (let n = 0; n < 3; n++) {
        const leader = await stage.someLeader();
        await leader.kill();
        await stage.someLeader();
        await pause(random.whole(0, 500), stage.stop);
        if (!extra.includes(leader)) await stage.start(leader.name);
      }
      await stage.endExtraRelays();
      return true;
    },
  },
  {
    name: 'network-reset',
    what: 'every connection of the relay that leads ends with RST',
    async inject(stage) {
      const { name } = await stage.someLeader();
      const network = stage.networkOf(name);
      const open = network.connections;
      network.reset();
      return open > 0;
    },
  },
  {
    name: 'network-half-closed',
    what: 'the server’s side of every connection of the relay that leads is closed, the other is not',
    async inject(stage) {
      const { name } = await stage.someLeader();
      stage.networkOf(name).halfClose();
      return true;
    },
  },
  {
    name: 'network-slow',
    what: 'everything comes 60 ms late and in pieces of 7 bytes, for 4 s',
    async inject(stage) {
      for (const { name } of stage.relays) stage.networkOf(name).change({ delayMs: 60, sliceBytes: 7 });
      await pause(4_000, stage.stop);
      for (const { name } of stage.relays) stage.networkOf(name).change();
      return true;
    },
  },
  {
    name: 'network-hangs',
    what: 'nothing of the relay that leads comes through, and nobody is told, until another one leads',
    async inject(stage) {
      const leader = await stage.someLeader();
      const network = stage.networkOf(leader.name);
      network.change({ hangs: true });
      const taken = await stage.takenFrom(leader.name);
      await pause(LEASE_MS, stage.stop);
      network.change();
      return taken;
    },
  },
  {
    name: 'network-gone',
    what: 'no relay can reach the server for 3 s',
    async inject(stage) {
      for (const { name } of stage.relays) {
        stage.networkOf(name).change({ refuses: true });
        stage.networkOf(name).reset();
      }
      await pause(3_000, stage.stop);
      const before = await stage.lastBatch();
      for (const { name } of stage.relays) stage.networkOf(name).change();
      return waitUntil(async () => (await stage.lastBatch()) > before, PATIENCE_MS, stage.stop);
    },
  },
];

async function switchUnderLoad(stage: Stage, random: Random): Promise<boolean> {
  const client = await openClient({ connectionString: stage.cluster.url, applicationName: 'torture operator' });
  let switches = 0;
  const ask = async (mode: RelayMode): Promise<void> => {
    await askForMode(client, SCHEMA, mode);
    const isSo = async (): Promise<boolean> => (await readRelayStanding(client, SCHEMA))?.mode === mode;
    if (await waitUntil(isSo, PATIENCE_MS, stage.stop)) switches += 1;
    await pause(random.whole(0, 300), stage.stop);
  };
  try {
    const before = await stage.commits();
    const startedMs = performance.now();
    await stage.rush(2_000, async () => {
      for (let n = 0; n < SWITCHES; n++) {
        await ask('polling');
        await ask('wal');
      }
    });
    const perSecond = ((await stage.commits()) - before) / ((performance.now() - startedMs) / 1_000);
    stage.history.write('mode-switch-load', 'info', { switches, perSecond: Math.round(perSecond) });
    await askForMode(client, SCHEMA, undefined);
  } finally {
    await closeClient(client);
  }
  // What the rush has piled up is worked off before anything is measured.
  await waitUntil(async () => (await stage.waiting()) < MOST_WAITING, 2 * PATIENCE_MS, stage.stop);
  return switches === 2 * SWITCHES;
}

const SCHEMA = 'tailrace';
const SWITCHES = 20;

async function switchTo(stage: Stage, mode: 'wal' | 'polling', isKilled: boolean): Promise<void> {
  stage.mode = mode;
  if (isKilled) await stage.killRelays();
  else await stage.stopRelays();
  const before = await stage.lastBatch();
  await stage.startRelays();
  await waitUntil(async () => (await stage.lastBatch()) > before, PATIENCE_MS, stage.stop);
}
