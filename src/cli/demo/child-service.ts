import { type ChildProcess, spawn } from 'node:child_process';
import { extname } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The programs that the demo starts: those of this folder, and the command line itself. */
export type Program = './writer-process' | './consumer-process' | './janitor-process' | '../main';

export interface ChildOptions {
  /** What the demo calls it. */
  readonly name: string;
  readonly program: Program;
  readonly args?: readonly string[];
  /** Added to this process's own environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called with each line that it writes to standard error. */
  readonly onLine?: (line: string) => void;
  /** Called if it ends without having been asked to. */
  readonly onCollapse: (child: ChildService) => void;
}

/** How long a process may take to end in good order. */
const STOP_TIMEOUT_MS = 30_000;
const LINES_KEPT = 20;

/**
 * A process of the demo's. It has a session of its own, so that Ctrl-C reaches only the demo, and a channel to the demo, by
 * which it notices the demo's end. It is ended by its own process id.
 */
export class ChildService {
  readonly name: string;
  /** Resolves when the process has ended and all that it wrote is read. Never rejects. */
  readonly ended: Promise<void>;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  #isReady = false;
  #isToEnd = false;

  constructor(options: ChildOptions) {
    this.name = options.name;
    this.#child = spawn(process.execPath, [pathOf(options.program), ...(options.args ?? [])], {
      detached: true,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.ended = Promise.all([this.#exit(), this.#readLines(options.onLine)]).then(() => undefined);
    this.#child.once('message', () => {
      this.#isReady = true;
    });
    void this.ended.then(() => {
      if (!this.#isToEnd) options.onCollapse(this);
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Whether the process has said that it works. */
  get isReady(): boolean {
    return this.#isReady;
  }

  /** What it wrote last, in one line, and how it ended. */
  get lastWords(): string {
    const { exitCode, signalCode } = this.#child;
    const said = this.#lines.slice(-LINES_KEPT).join(' | ');
    return `${signalCode ?? `exit code ${exitCode ?? 'unknown'}`}${said === '' ? '' : `: ${said}`}`;
  }

  /** Ends it the hard way: it can do nothing about it and learns nothing of it. */
  async kill(): Promise<void> {
    this.#isToEnd = true;
    this.#child.kill('SIGKILL');
    await this.ended;
  }

  /** Asks it to end, and waits until it has. Returns false if it had to be killed. */
  async stop(): Promise<boolean> {
    this.#isToEnd = true;
    this.#child.kill('SIGTERM');
    return this.#endsInTime();
  }

  /** Cuts the channel, as this process's end would, and waits until it has ended. Returns false if it failed or hung. */
  async leave(): Promise<boolean> {
    this.#isToEnd = true;
    if (this.#child.connected) this.#child.disconnect();
    return (await this.#endsInTime()) && this.#child.exitCode === 0;
  }

  async #endsInTime(): Promise<boolean> {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#child.kill('SIGKILL');
    }, STOP_TIMEOUT_MS);
    await this.ended;
    clearTimeout(timer);
    return !isLate;
  }

  /** Not its event `close`, which does not come once the channel has been cut from this side. */
  #exit(): Promise<void> {
    return new Promise((resolve) => {
      this.#child.once('exit', () => {
        resolve();
      });
      this.#child.once('error', (error) => {
        this.#lines.push(error.message);
        resolve();
      });
    });
  }

  async #readLines(onLine: (line: string) => void = () => undefined): Promise<void> {
    const { stderr } = this.#child;
    if (stderr === null) return;
    for await (const line of createInterface({ input: stderr })) {
      this.#lines.push(line);
      if (this.#lines.length > LINES_KEPT) this.#lines.shift();
      onLine(line);
    }
  }
}

/** The programs are TypeScript where this file is, and JavaScript where it is built. */
function pathOf(program: Program): string {
  return fileURLToPath(new URL(`${program}${extname(import.meta.url)}`, import.meta.url));
}
