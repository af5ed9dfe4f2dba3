import { messageOf } from '../../../src/base/errors.ts';
import { pause } from '../../../src/base/signal.ts';
import { fakeClock, findFakeClock } from '../fake-clock.ts';
import type { Fault } from '../fault.ts';
import type { Stage } from '../stage.ts';

/** Clocks that are wrong. */
export const CLOCKS: readonly Fault[] = [
  {
    name: 'clock-skew',
    what: 'the clocks of a relay and a writer are 2 h fast, those of the other relay and of a consumer 2 h slow; relays take over from each other',
    slow: true,
    missing: () =>
      findFakeClock().then(
        () => undefined,
        (error: unknown) => messageOf(error),
      ),
    inject: skewClocks,
  },
];

const HOURS = { 'relay-1': 2, 'relay-2': -2, 'consumer-1': -2, 'writer-1': 2 } as const;
const HOUR_MS = 3_600_000;
const TOLERANCE_MS = HOUR_MS / 4;

async function skewClocks(stage: Stage): Promise<boolean> {
  const library = await findFakeClock();
  try {
    for (const [name, hours] of Object.entries(HOURS)) stage.setEnvironment(name, fakeClock(library, hours));
    await restartThem(stage);
    const isSkewed = Object.entries(HOURS).every(([name, hours]) => {
      const aheadMs = stage.childOf(name)?.clockAheadMs ?? 0;
      return Math.abs(aheadMs - hours * HOUR_MS) < TOLERANCE_MS;
    });
    const leader = await stage.someLeader();
    await stage.end(leader);
    const taken = await stage.takenFrom(leader.name);
    await stage.start(leader.name);
    await pause(1_000, stage.stop);
    return isSkewed && taken;
  } finally {
    for (const name of Object.keys(HOURS)) stage.setEnvironment(name);
    await restartThem(stage);
  }
}

async function restartThem(stage: Stage): Promise<void> {
  for (const name of Object.keys(HOURS)) {
    const child = stage.childOf(name);
    if (child !== undefined) await stage.restart(child);
  }
}
