import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { runCommandLine } from '../../src/cli/program.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

export interface Outcome {
  readonly exitCode: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a command line in this process; not one that listens for signals. `input` are the lines of standard input. */
export async function run(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  input: readonly string[] = [],
): Promise<Outcome> {
  let out = '';
  let err = '';
  const exitCode = await runCommandLine(args, {
    env,
    out: (text) => (out += text),
    err: (text) => (err += text),
    flushed: () => Promise.resolve(),
    outClosed: new AbortController().signal,
    lines: () => Readable.from(input),
    isWatched: false,
    hasColors: false,
    columns: 80,
  });
  return { exitCode, out, err };
}

/** The command line in a process of its own, killed when the test is over. */
export class CliProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  #out = '';
  #err = '';
  #changed = Promise.withResolvers<undefined>();
  readonly #ended: Promise<unknown>;

  /** @param input what it finds on standard input. */
  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}, input = '') {
    this.child = spawn(process.execPath, [MAIN, ...args], {
      cwd: '/',
      env: { ...process.env, ...env },
      stdio: ['pipe', 'pipe', 'pipe', 'ipc'],
    });
    this.child.stdin?.on('error', () => undefined).end(input); // most do not read it
    this.#ended = once(this.child, 'exit');
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#out += text;
      this.#tell();
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#err += text;
      this.#tell();
    });
    this.child.once('exit', () => {
      this.#tell();
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** What it has written to standard error. */
  get err(): string {
    return this.#err;
  }

  /** Resolves with the match once its standard error has one; throws if it ends before. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#has(pattern, () => this.#err);
  }

  /** The same of its standard output. */
  prints(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#has(pattern, () => this.#out);
  }

  async #has(pattern: RegExp, text: () => string): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(text());
      if (match !== null) return match;
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        throw new Error(`The process ended without saying ${String(pattern)}:\n${this.#err}`);
      }
      await this.#changed.promise;
    }
  }

  /** Resolves when it has ended and all that it wrote is here. */
  async outcome(): Promise<Outcome> {
    await Promise.all([this.#ended, finished(this.child.stdout), finished(this.child.stderr)]);
    return { exitCode: this.child.exitCode, out: this.#out, err: this.#err };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#ended;
  }

  #tell(): void {
    this.#changed.resolve(undefined);
    this.#changed = Promise.withResolvers<undefined>();
  }
}

async function finished(stream: NodeJS.ReadableStream | null): Promise<void> {
  if (stream !== null && stream.readable) await once(stream, 'end');
}

/** Whether a process of that id runs. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
