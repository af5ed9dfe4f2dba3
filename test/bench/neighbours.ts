import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { familySeconds, TICKS_PER_SECOND } from './cpu.ts';

/**
 * The share of the machine's processors that others used while `action` ran: neither this process nor its descendants, the
 * server and the workers among them. What the kernel does by itself counts as theirs. Linux only.
 */
export async function withNeighbours<T>(
  action: () => Promise<T>,
): Promise<{ readonly result: T; readonly share: number }> {
  const before = await usage();
  const result = await action();
  const after = await usage();
  const capacity = ((after.at - before.at) / 1000) * availableParallelism();
  const theirs = after.busy - before.busy - (after.own - before.own);
  return { result, share: Math.max(0, theirs / capacity) };
}

interface Usage {
  readonly at: number;
  /** Seconds of all processors that were not idle. */
  readonly busy: number;
  readonly own: number;
}

async function usage(): Promise<Usage> {
  const [stat, own] = await Promise.all([readFile('/proc/stat', 'utf8'), familySeconds(process.pid)]);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = stat
    .slice(0, stat.indexOf('\n'))
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return { at: performance.now(), busy: (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND, own };
}
