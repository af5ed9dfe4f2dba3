import { readdir, readFile } from 'node:fs/promises';

/** What a process of Postgres is there for, by its title. `ended`: those that are gone, of whatever kind. */
export type ServerPart = 'walsender' | 'backends' | 'background' | 'ended';

/** Seconds of the processor that were used up to a moment; Linux only. */
export type ServerCpu = Readonly<Record<ServerPart, number>>;

/** USER_HZ, which is the same on every Linux. */
export const TICKS_PER_SECOND = 100;

interface Stat {
  readonly parent: number;
  /** Its own seconds, user and system. */
  readonly own: number;
  /** Those of its children that have ended and been waited for. */
  readonly ofEnded: number;
}

async function readStat(pid: number): Promise<Stat> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' '); // the name before may hold anything
  const seconds = (at: number): number => Number(fields[at]) / TICKS_PER_SECOND;
  return { parent: Number(fields[1]), own: seconds(11) + seconds(12), ofEnded: seconds(13) + seconds(14) };
}

/** What a process has used, with its threads. */
export async function cpuSeconds(pid: number): Promise<number> {
  return (await readStat(pid)).own;
}

/** What children of this process that have ended have used. */
export async function childrenSeconds(): Promise<number> {
  return (await readStat(process.pid)).ofEnded;
}

/** What a server has used with all its processes, those that have ended included. */
export async function serverCpu(postmaster: number): Promise<ServerCpu> {
  const sum: Record<ServerPart, number> = { walsender: 0, backends: 0, background: 0, ended: 0 };
  const own = await readStat(postmaster);
  sum.background += own.own;
  sum.ended += own.ofEnded;
  for (const pid of await childrenOf(postmaster)) {
    const both = Promise.all([readStat(pid), readFile(`/proc/${pid}/cmdline`, 'utf8')]);
    const found = await both.catch(() => undefined); // it has ended meanwhile
    if (found !== undefined) sum[partOf(found[1])] += found[0].own;
  }
  return sum;
}

/** What a process, its descendants and those of them that have ended have used. */
export async function familySeconds(root: number): Promise<number> {
  const stats = await allStats();
  const sum = (pid: number): number => {
    const stat = stats.get(pid);
    if (stat === undefined) return 0;
    const children = [...stats].filter(([, { parent }]) => parent === pid);
    return stat.own + stat.ofEnded + children.reduce((seconds, [child]) => seconds + sum(child), 0);
  };
  return sum(root);
}

/** What was used between two moments, in microseconds for each of so many messages. */
export function microsPerMessage(before: ServerCpu, after: ServerCpu, messages: number): ServerCpu {
  const each = (part: ServerPart): number => round(((after[part] - before[part]) * 1e6) / messages);
  return {
    walsender: each('walsender'),
    backends: each('backends'),
    background: each('background'),
    ended: each('ended'),
  };
}

/** Two digits are more than can be measured. */
export function round(value: number): number {
  return Math.round(value * 100) / 100;
}

async function childrenOf(parent: number): Promise<number[]> {
  return [...(await allStats())].filter(([, stat]) => stat.parent === parent).map(([pid]) => pid);
}

/** Of every process that is there. */
async function allStats(): Promise<Map<number, Stat>> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const stats = await Promise.all(pids.map(async (pid) => readStat(pid).catch(() => undefined))); // it may have ended
  return new Map(pids.flatMap((pid, n) => (stats[n] === undefined ? [] : [[pid, stats[n]] as const])));
}
/** The title that Postgres gives its processes: `postgres: walsender …`, `postgres: <user> <database> <address> …`. */
export function partOf(title: string): ServerPart {
  if (title.startsWith('postgres: walsender')) return 'walsender';
  return /^postgres: \S+ \S+ \S+\(\d+\)/.test(title) ? 'backends' : 'background';
}
