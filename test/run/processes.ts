import { readFile, readdir } from 'node:fs/promises';

/** A process that runs. */
export interface RunningProcess {
  readonly pid: number;
  /** Its program and arguments. */
  readonly command: string;
}

/**
 * The processes whose environment or command line contains `mark`: whoever was started with it in the environment hands it
 * on to its own children, detached or not. Linux; elsewhere none are found.
 */
export async function processesMarked(mark: string): Promise<RunningProcess[]> {
  const entries = await readdir('/proc').catch(() => []);
  const found = await Promise.all(entries.filter((name) => /^\d+$/.test(name)).map((pid) => lookAt(pid, mark)));
  return found.filter((entry) => entry !== undefined);
}

async function lookAt(pid: string, mark: string): Promise<RunningProcess | undefined> {
  if (Number(pid) === process.pid) return undefined;
  const [environment, commandLine] = await Promise.all(
    ['environ', 'cmdline'].map((name) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '')),
  );
  const isMarked = [environment, commandLine].some((text) => text?.includes(mark));
  const command = (commandLine ?? '').replaceAll('\0', ' ').trim();
  // One that has ended and was not yet waited for has neither.
  return isMarked ? { pid: Number(pid), command } : undefined;
}
