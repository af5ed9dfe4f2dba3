import { spawn } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { pause } from '../../../src/base/signal.ts';
import type { Fault } from '../fault.ts';
import type { Random } from '../random.ts';
import { CONSUMER_LEASE_MS, PATIENCE_MS, type Stage } from '../stage.ts';
import { waitUntil } from '../wait-until.ts';

/** The database that handlers write to, on a server of its own. */
export const HANDLERS: readonly Fault[] = [
  {
    name: 'handler-database-down',
    what: 'the server that the handlers write to, not that of the log, is killed, stopped at once or hangs until every lease has run out, and comes back',
    bySeed: true,
    wantsHandlersServer: true,
    async inject(stage, random) {
      const before = await stage.owners();
      await random.pick([goDown, hang])(stage, random);
      return () => waitUntil(async () => (await stage.owners()) > before, PATIENCE_MS, stage.stop);
    },
  },
];

/** Members have lost everything by then. */
const LEASES_MS = CONSUMER_LEASE_MS + 1_500;

async function goDown({ handlersCluster, stop }: Stage, random: Random): Promise<void> {
  await handlersCluster.shutDown(random.pick(['kill', 'immediate']));
  await pause(LEASES_MS, stop);
  await handlersCluster.startAgain();
}

/** It takes connections, and answers nobody. If the run ends meanwhile, a shell lets its processes go on, so that they can end. */
async function hang({ handlersCluster: { pid }, stop }: Stage): Promise<void> {
  signal(pid, 'SIGSTOP'); // first, so that it makes no more of them
  const pids = [pid, ...childrenOf(pid)];
  const guard = spawn('/bin/sh', ['-c', 'read -r _; kill -CONT "$@"', 'sh', ...pids.map(String)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  for (const each of pids) signal(each, 'SIGSTOP');
  try {
    await pause(LEASES_MS, stop);
  } finally {
    for (const each of pids.reverse()) signal(each, 'SIGCONT');
    guard.kill('SIGKILL');
  }
}

function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((each) => Number.isInteger(each) && parentOf(each) === pid);
}

function parentOf(pid: number): number | undefined {
  try {
    return Number(/^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  } catch {
    return undefined; // it has ended
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // it has ended
  }
}
