import { type ChildProcess, spawn } from 'node:child_process';
import { type FSWatcher, watch } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Signal } from '../base/signal.ts';
import type { ServerAccount } from './server-account.ts';

/** A data folder, and the programs and system user that serve it. */
export interface Cluster {
  readonly binDir: string;
  readonly account: ServerAccount | undefined;
  readonly dataDir: string;
}

/** A process, and where its messages begin in the log. */
export interface Launched {
  readonly child: ChildProcess;
  readonly log: () => Promise<string>;
}

/** Starts the postmaster, with its messages going to `server.log` in the data folder. */
export async function spawnPostmaster(cluster: Cluster): Promise<Launched> {
  const path = join(cluster.dataDir, 'server.log');
  const file = await open(path, 'a', 0o600);
  try {
    const { size } = await file.stat();
    // Detached: Ctrl-C in the terminal is for this process, which then stops the server in its own time.
    const child = spawn(join(cluster.binDir, 'postgres'), ['-D', cluster.dataDir], {
      cwd: '/',
      detached: true,
      stdio: ['ignore', file.fd, file.fd],
      ...cluster.account,
    });
    child.on('error', () => undefined); // has no pid then, which readiness reports
    child.unref();
    return { child, log: async () => (await readFile(path)).subarray(size).toString() };
  } finally {
    await file.close();
  }
}

/**
 * Waits until the postmaster says in `postmaster.pid` that it accepts connections. Returns what happened instead, if
 * something else did.
 */
export async function readiness(cluster: Cluster, { child }: Launched, timeoutMs: number): Promise<string | undefined> {
  const changed = new Signal();
  const wake = (): void => {
    changed.notify();
  };
  const watcher = watchFolder(cluster.dataDir, wake);
  child.once('exit', wake);
  const deadline = performance.now() + timeoutMs;
  try {
    for (;;) {
      if (child.pid === undefined) return 'could not be run';
      if (hasExited(child)) return `ended while it was starting (${String(child.exitCode ?? child.signalCode)})`;
      if (await acceptsConnections(cluster.dataDir, child.pid)) return undefined;
      if (performance.now() > deadline) return `did not accept connections within ${timeoutMs} ms`;
      await changed.wait(POLL_MS);
    }
  } finally {
    watcher?.close();
    child.off('exit', wake);
  }
}

/** Some file systems report no changes; the file is read at least this often. */
const POLL_MS = 100;

function watchFolder(folder: string, wake: () => void): FSWatcher | undefined {
  try {
    return watch(folder, wake).on('error', wake);
  } catch {
    return undefined; // the system is out of watches: the poll is enough
  }
}

/** Line 1 of `postmaster.pid` is the pid, line 8 the state. A file left behind by a crash has another pid. */
async function acceptsConnections(dataDir: string, pid: number): Promise<boolean> {
  const text = await readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => '');
  const lines = text.split('\n');
  return Number(lines[0]) === pid && ['ready', 'standby'].includes((lines[7] ?? '').trim());
}

function hasExited(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/**
 * Starts a process that outlives this one, if only by a moment: when this process ends, whichever way, the pipe between
 * them closes; then it shuts the server down and removes the folders.
 */
export function guard(child: ChildProcess, folders: readonly string[]): void {
  if (child.pid === undefined) return;
  const script = [
    'read -r _; pid=$1; shift; kill -INT "$pid" 2>/dev/null',
    'n=0; while [ "$n" -lt 200 ] && kill -0 "$pid" 2>/dev/null; do n=$((n + 1)); [ "$n" -eq 100 ] && kill -QUIT "$pid"; sleep 0.1; done',
    '[ "$#" -eq 0 ] || rm -rf -- "$@"',
  ];
  const args = ['-c', script.join('\n'), 'tailrace-postgres-guard', String(child.pid), ...folders];
  const watcher = spawn('/bin/sh', args, { cwd: '/', detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  watcher.on('error', () => undefined); // no shell: the server is as safe as without a guard
  watcher.unref();
  child.once('exit', () => watcher.kill('SIGKILL')); // before the pid can belong to another process
}

/** Postgres' fast, then its immediate shutdown, then the system's; with how long each may take. */
const SHUTDOWN: readonly (readonly [NodeJS.Signals, number])[] = [
  ['SIGINT', 10_000],
  ['SIGQUIT', 10_000],
  ['SIGKILL', Infinity],
];

/** Ends the postmaster and resolves once it is gone; at once if it is gone already. */
export async function shutDown(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || hasExited(child)) return;
  const exited = new Signal();
  child.ref();
  child.once('exit', () => {
    exited.notify();
  });
  for (const [signal, waitMs] of SHUTDOWN) {
    child.kill(signal);
    if (await exited.wait(waitMs)) return;
  }
}
