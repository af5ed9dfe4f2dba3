import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type RunningProcess, processesMarked } from './processes.ts';

/** What a run was, once it is over. */
export interface RunOutcome {
  /** As the program ended; `null` after a signal. */
  readonly exitCode: number | null;
  /** A line for each thing that it left behind. */
  readonly leftovers: readonly string[];
}

/** Node's cache of compiled code, in the temporary folder: what is left there, and not by the tests. */
const COMPILE_CACHE = 'node-compile-cache';

/**
 * Runs a program with temporary folders of its own, and then looks for what it left behind: processes (and with them their
 * ports) and files. What is left after `graceMs` is named, ended and removed. Other runs beside it are not looked at.
 */
export async function runAlone(
  program: string,
  args: readonly string[],
  { graceMs = 15_000 }: { readonly graceMs?: number } = {},
): Promise<RunOutcome> {
  const mark = `tailrace-run-${randomUUID()}`;
  const folders = await temporaryFolders();
  try {
    const exitCode = await runToEnd(program, args, environmentOf(mark, folders));
    const processes = await processesLeft(mark, graceMs);
    for (const { pid } of processes) kill(pid);
    return { exitCode, leftovers: [...processes.map(describe), ...(await filesLeft(folders))] };
  } finally {
    for (const folder of folders) await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }
}

/** In the system's temporary folder, and in memory where there is such a one. The system user of a server reaches them. */
async function temporaryFolders(): Promise<string[]> {
  const made: string[] = [];
  for (const parent of [tmpdir(), '/dev/shm']) {
    const folder = await mkdtemp(join(parent, 'tailrace-run-')).catch(() => undefined);
    if (folder === undefined) continue;
    await chmod(folder, 0o755);
    made.push(folder);
  }
  return made;
}

/** Programs that the tests start, hundreds of times, keep what was compiled of them: half a second each. */
function environmentOf(mark: string, [temporary, memory]: readonly string[]): NodeJS.ProcessEnv {
  return {
    ...process.env,
    TAILRACE_TEST_RUN: mark,
    TMPDIR: temporary,
    TAILRACE_TEST_MEMORY_DIR: memory,
    ...(temporary === undefined ? {} : { NODE_COMPILE_CACHE: join(temporary, COMPILE_CACHE) }),
  };
}

/** Ctrl-C reaches the program by itself; a signal to this process alone is handed on. */
function runToEnd(program: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'inherit', env });
    const ignore = (): void => undefined;
    const handOn = (): void => void child.kill('SIGTERM');
    process.on('SIGINT', ignore).on('SIGTERM', handOn);
    child.once('error', reject).once('exit', (exitCode) => {
      process.off('SIGINT', ignore).off('SIGTERM', handOn);
      resolve(exitCode);
    });
  });
}

/** A server whose test process was killed is still being shut down by its guard: that is given time. */
async function processesLeft(mark: string, graceMs: number): Promise<RunningProcess[]> {
  const deadline = performance.now() + graceMs;
  for (;;) {
    const processes = await processesMarked(mark);
    if (processes.length === 0 || performance.now() > deadline) return processes;
    await sleep(100);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it has just ended
  }
}

function describe({ pid, command }: RunningProcess): string {
  return `process ${String(pid)}: ${command}`;
}

async function filesLeft(folders: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    folders.map(async (folder) => (await readdir(folder)).map((name) => ({ name, path: join(folder, name) }))),
  );
  return found
    .flat()
    .filter(({ name }) => name !== COMPILE_CACHE)
    .map(({ path }) => `file or folder: ${path}`);
}
