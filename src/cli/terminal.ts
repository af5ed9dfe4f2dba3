import { createInterface } from 'node:readline';

/** What the command line sees of the world. */
export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Writes a result to standard output: with `--json` one document, and nothing else. */
  out(text: string): void;
  /** Resolves once the reader of standard output has taken what was written, or has closed it. */
  flushed(): Promise<void>;
  /** Fires when the reader of standard output has seen enough and closed it, as `head` does. */
  readonly outClosed: AbortSignal;
  /** The lines of standard input. */
  lines(): AsyncIterable<string>;
  /** Writes progress, logs and errors to standard error. */
  err(text: string): void;
  /** Whether somebody watches standard error, so that a line may be written over. */
  readonly isWatched: boolean;
  /** Whether colors may be used on standard error. */
  readonly hasColors: boolean;
  /** How wide a line of standard error is, in characters. */
  readonly columns: number;
}

/** The terminal, or the pipes, of this process. */
export function processTerminal(): Terminal {
  const { stdin, stdout, stderr, env } = process;
  for (const stream of [stdout, stderr]) stream.on('error', ignoreClosedPipe);
  const outClosed = new AbortController();
  stdout.once('error', () => {
    outClosed.abort();
  });
  const isWatched = stderr.isTTY && env['TERM'] !== 'dumb';
  return {
    env,
    out: (text) => void stdout.write(text),
    flushed: () =>
      new Promise((resolve) => {
        if (outClosed.signal.aborted) resolve();
        else
          stdout.write('', () => {
            resolve();
          });
      }),
    outClosed: outClosed.signal,
    lines: () => linesOf(stdin),
    err: (text) => void stderr.write(text),
    isWatched,
    hasColors: isWatched && (env['NO_COLOR'] ?? '') === '',
    get columns() {
      return stderr.columns || 80;
    },
  };
}

/** Reads from the first time that it is asked for a line: what a line reader reads before that, it throws away. */
async function* linesOf(input: NodeJS.ReadableStream): AsyncGenerator<string, void, undefined> {
  yield* createInterface({ input, crlfDelay: Infinity });
}

/** A reader that has seen enough, such as `head`, closes the pipe: no reason to fail. */
function ignoreClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
}
