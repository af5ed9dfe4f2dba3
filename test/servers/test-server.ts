import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A server for the tests: one of their own on loopback, or one that the environment named. */
export interface RunningServer extends AsyncDisposable {
  readonly url: string;
  /** The folder of its data; `undefined` for one that the environment named. */
  readonly folder: string | undefined;
  /** Ends it by its own pid and removes its folder. One that the environment named is left alone. Safe to call twice. */
  readonly stop: () => Promise<void>;
}

/** A server that the environment named: not ours to stop. */
export function givenServer(url: string): RunningServer {
  const stop = (): Promise<void> => Promise.resolve();
  return { url, folder: undefined, stop, [Symbol.asyncDispose]: stop };
}

/** How a process is started, and how it says that it is ready. */
export interface Launch {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Looked for in what it prints. */
  readonly ready: RegExp;
}

/** A process that has said that it is ready. */
export interface Launched {
  readonly match: RegExpExecArray;
  readonly end: () => Promise<void>;
}

const READY_WITHIN_MS = 120_000;
const STOP_WITHIN_MS = 20_000;

/** Starts a process and waits until it says that it is ready. Throws with its last lines if it ends, or says nothing for two minutes. */
export async function launch({ program, args, env, ready }: Launch): Promise<Launched> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  const end = (): Promise<void> => endProcess(child);
  try {
    return { match: await untilReady(child, ready), end };
  } catch (error) {
    await end();
    throw error;
  }
}

function untilReady(child: ChildProcess, ready: RegExp): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    let output = '';
    const fail = (what: string): void => {
      clearTimeout(timer);
      reject(
        new Error(`${child.spawnfile} ${what}. Its last lines:\n${output.trim().split('\n').slice(-20).join('\n')}`),
      );
    };
    const timer = setTimeout(fail, READY_WITHIN_MS, 'was not ready within two minutes');
    const take = (chunk: Buffer): void => {
      output += chunk.toString(); // read to the end, or a full pipe would stop the server
      const match = ready.exec(output);
      if (match !== null) {
        clearTimeout(timer);
        resolve(match);
      }
      if (output.length > 100_000) output = output.slice(-50_000);
    };
    child.stdout?.on('data', take);
    child.stderr?.on('data', take);
    child.once('error', (error) => {
      fail(`cannot be run: ${error.message}`);
    });
    child.once('exit', (code, signal) => {
      fail(`ended while it was starting (${String(code ?? signal)})`);
    });
  });
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN_MS);
  await exited;
  clearTimeout(timer);
}

const ATTEMPTS = 5;
const PORT_TAKEN = /address already in use|eaddrinuse/i;

/**
 * A server of the tests' own, in a new folder. `start` may be called again with another folder if somebody took its port in
 * the meantime; it returns the URL, and the processes in the order in which they are ended.
 */
export async function startOwnServer(
  start: (folder: string) => Promise<{ readonly url: string; readonly processes: readonly Launched[] }>,
): Promise<RunningServer> {
  for (let attempt = 1; ; attempt += 1) {
    const folder = await mkdtemp(join(tmpdir(), 'tailrace-server-'));
    try {
      const { url, processes } = await start(folder);
      return running(url, folder, processes);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      if (attempt === ATTEMPTS || !PORT_TAKEN.test(String(error))) throw error;
    }
  }
}

function running(url: string, folder: string, processes: readonly Launched[]): RunningServer {
  let stopping: Promise<void> | undefined;
  const stopOnce = async (): Promise<void> => {
    for (const { end } of processes) await end();
    await rm(folder, { recursive: true, force: true });
  };
  const stop = (): Promise<void> => (stopping ??= stopOnce());
  return { url, folder, stop, [Symbol.asyncDispose]: stop };
}
