import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The programs that a run starts. */
export type Program = 'writer-process' | 'relay-process' | 'consumer-process' | 'bridge-process';

export interface ChildOptions {
  readonly name: string;
  readonly program: Program;
  /** Handed over by the environment: URLs do not belong on a command line. */
  readonly settings: object;
  /** Goes before the program and becomes it, such as `ip netns exec name`. */
  readonly prefix?: readonly string[];
  /** Added to those of the run. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly onMessage?: (message: unknown) => void;
  /** Called if it ends without having been asked to. */
  readonly onCollapse: (child: Child) => void;
}

const STOP_TIMEOUT_MS = 90_000;
const LINES_KEPT = 20;
export const SETTINGS_VARIABLE = 'TAILRACE_TORTURE_SETTINGS';

/** A process of the run, in a session of its own: Ctrl-C reaches only the run. It ends when the run does. */
export class Child {
  readonly name: string;
  /** Resolves when the process has ended. Never rejects. */
  readonly ended: Promise<void>;
  /** Resolves when the process says that it works, or has ended. */
  readonly ready: Promise<void>;
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  #guard: ChildProcess | undefined;
  #isToEnd = false;
  #hasEnded = false;
  #isReady = false;
  #clockAheadMs = 0;

  constructor(options: ChildOptions) {
    this.name = options.name;
    const path = fileURLToPath(new URL(`${options.program}.ts`, import.meta.url));
    const [command = process.execPath, ...args] =
      options.prefix === undefined ? [] : [...options.prefix, process.execPath];
    this.#process = spawn(command, [...args, path], {
      detached: true,
      env: { ...process.env, ...options.environment, [SETTINGS_VARIABLE]: JSON.stringify(options.settings) },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#keepLines();
    const ready = Promise.withResolvers<undefined>();
    this.ready = ready.promise;
    this.#process.on('message', (message) => {
      if (isReadyMessage(message)) {
        this.#clockAheadMs = message.readyAtMs - Date.now();
        this.#isReady = true;
        ready.resolve(undefined);
      } else options.onMessage?.(message);
    });
    this.ended = new Promise((resolve) => {
      this.#process.once('exit', () => {
        resolve();
      });
      this.#process.once('error', (error) => {
        this.#lines.push(error.message);
        resolve();
      });
    });
    void this.ended.then(() => {
      this.#hasEnded = true;
      this.#guard?.kill('SIGKILL');
      ready.resolve(undefined);
      if (!this.#isToEnd) options.onCollapse(this);
    });
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  get isRunning(): boolean {
    return !this.#hasEnded;
  }

  /** How far its clock was ahead of this process's when it became ready. */
  get clockAheadMs(): number {
    return this.#clockAheadMs;
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** How it ended, and what it wrote last. */
  get lastWords(): string {
    const { exitCode, signalCode } = this.#process;
    return [signalCode ?? `exit code ${exitCode ?? 'unknown'}`, ...this.#lines].join(' | ');
  }

  send(message: object): void {
    if (this.#process.connected) this.#process.send(message, () => undefined); // a process that has gone hears nothing
  }

  /** Says that its end, whichever way, is part of the plan. */
  expectEnd(): void {
    this.#isToEnd = true;
  }

  async kill(): Promise<void> {
    this.#isToEnd = true;
    if (this.isRunning) this.#process.kill('SIGKILL');
    await this.ended;
  }

  /** Asks it to end, and waits until it has. Returns false if it had to be killed. */
  async stop(): Promise<boolean> {
    this.#isToEnd = true;
    if (this.isRunning) this.#process.kill('SIGTERM');
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#process.kill('SIGKILL');
    }, STOP_TIMEOUT_MS);
    await this.ended;
    clearTimeout(timer);
    return !isLate;
  }

  freeze(): void {
    this.guard();
    this.#process.kill('SIGSTOP');
  }

  thaw(): void {
    this.#process.kill('SIGCONT');
  }

  /** A stopped process cannot notice that the run has ended: this kills it then. Comes before it is stopped. */
  guard(): void {
    this.#guard ??= spawn('/bin/sh', ['-c', 'read -r _; kill -KILL "$0"', String(this.pid)], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
  }

  /** Whether it is stopped by a signal now. */
  get isFrozen(): boolean {
    return statusOf(this.pid, 'State')?.startsWith('T') ?? false;
  }

  /** The most memory that it has had so far. */
  get peakMemoryMiB(): number {
    return Number.parseInt(statusOf(this.pid, 'VmHWM') ?? '0') / 1024;
  }

  #keepLines(): void {
    const { stderr } = this.#process;
    if (stderr === null) return;
    createInterface({ input: stderr }).on('line', (line) => {
      this.#lines.push(line);
      if (this.#lines.length > LINES_KEPT) this.#lines.shift();
    });
  }
}

function isReadyMessage(message: unknown): message is { readonly readyAtMs: number } {
  return typeof message === 'object' && message !== null && 'readyAtMs' in message;
}

function statusOf(pid: number, field: string): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'utf8');
    return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(text)?.[1];
  } catch {
    return undefined; // it has ended
  }
}
