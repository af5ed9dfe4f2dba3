import { messageOf } from '../../src/base/errors.ts';
import { SETTINGS_VARIABLE } from './child.ts';

/** A process's way to the run that started it. */
export interface ParentLink<Settings> {
  readonly settings: Settings;
  /** Fires when the process is to end in good order. */
  readonly stopping: AbortSignal;
  ready(): void;
  send(message: object): void;
  onMessage(listener: (message: unknown) => void): void;
}

/** Ties this process to the run: it ends when the run does, whichever way. SIGTERM asks it to end in good order. */
export function linkToParent<Settings>(): ParentLink<Settings> {
  const stopping = new AbortController();
  process.on('disconnect', () => process.exit(1));
  process.on('SIGINT', () => undefined);
  process.on('SIGTERM', () => {
    stopping.abort();
  });
  return {
    settings: JSON.parse(process.env[SETTINGS_VARIABLE] ?? '{}') as Settings,
    stopping: stopping.signal,
    ready: () => void process.send?.({ readyAtMs: Date.now() }),
    send: (message) => void process.send?.(message),
    onMessage: (listener) => void process.on('message', listener),
  };
}

/** Does a process's work and lets the process end. What the work throws becomes a line on standard error and exit code 1. */
export async function work(run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  }
  process.exit(0);
}

export function stopRequested(stopping: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (stopping.aborted) resolve();
    else stopping.addEventListener('abort', () => resolve(), { once: true });
  });
}
