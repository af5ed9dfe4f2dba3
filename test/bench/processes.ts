import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** A child process of the bench, which speaks JSON lines on stdout and stops when its stdin ends. */
export interface Worker {
  readonly pid: number;
  /** The next line that it prints. Rejects if it ends first. */
  next(): Promise<Record<string, unknown>>;
  /** Writes a line to its stdin. */
  tell(line: string): void;
  /** Asks it to stop, and waits for its end. */
  stop(): Promise<void>;
}

/** `flags` are those of Node. */
export function startWorker(file: string, argument: object, flags: readonly string[] = []): Worker {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const child = spawn(process.execPath, [...flags, path, JSON.stringify(argument)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const next = lineReader(child, file);
  return {
    pid: child.pid ?? 0,
    next: async () => JSON.parse(await next()) as Record<string, unknown>,
    tell: (line) => {
      child.stdin.write(`${line}\n`);
    },
    stop: async () => {
      child.stdin.end();
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    },
  };
}

/** Runs a program of Node in the background; `stop` sends SIGTERM and waits for its end. `flags` are those of Node. */
export function startProgram(
  file: string,
  args: readonly string[],
  flags: readonly string[] = [],
): { readonly pid: number; stop(): Promise<void> } {
  const child = spawn(process.execPath, [...flags, file, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  return {
    pid: child.pid ?? 0,
    stop: async () => {
      child.kill('SIGTERM');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    },
  };
}

function lineReader(child: ChildProcess, name: string): () => Promise<string> {
  const lines: string[] = [];
  let rest = '';
  let wake = (): void => undefined;
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
    wake();
  });
  child.once('exit', () => {
    wake();
  });
  return async () => {
    for (;;) {
      const line = lines.shift();
      if (line !== undefined) return line;
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`${name} ended before it had reported.`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
}

/** Resident memory of a process and its highest value so far, in MiB; Linux only. */
export async function memoryMiB(pid: number): Promise<{ now: number; peak: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const read = (field: string): number => Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1] ?? NaN) / 1024;
  return { now: read('VmRSS'), peak: read('VmHWM') };
}

/** Runs a program to its end and answers how long that took, in seconds. */
export async function timeProgram(program: string, args: readonly string[]): Promise<number> {
  const started = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let complaints = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${program} ended with ${String(code)}: ${complaints}`);
  return (performance.now() - started) / 1000;
}

/** Waits; less long if `signal` fires. */
export async function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  await setTimeout(seconds * 1000, undefined, { signal }).catch(() => undefined); // it fired
}

const POLL_MS = 200;

/** Waits until `condition` holds; asks it five times a second. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await pause(POLL_MS / 1000);
}
