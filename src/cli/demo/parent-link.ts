import { messageOf } from '../../base/errors.ts';

/** What a process of the demo gets from the one that started it, by its environment: URLs do not belong on a command line. */
const SETTINGS_VARIABLE = 'TAILRACE_DEMO_SETTINGS';

/** The environment that hands settings to a process. */
export function settingsEnv(settings: object): Record<string, string> {
  return { [SETTINGS_VARIABLE]: JSON.stringify(settings) };
}

/** A process's way to the one that started it. */
export interface ParentLink<Settings> {
  readonly settings: Settings;
  /** Fires when the process is to end in good order. */
  readonly stopping: AbortSignal;
  /** Resolves then. */
  readonly stopRequested: Promise<void>;
  /** Tells the parent that the process works. */
  ready(): void;
}

/**
 * Ties this process to its parent: it ends when the parent does, whichever way. SIGTERM asks it to end in good order; Ctrl-C
 * is the parent's business.
 */
export function linkToParent<Settings>(onParentGone: () => void = () => process.exit(1)): ParentLink<Settings> {
  const stopping = new AbortController();
  process.on('disconnect', onParentGone);
  process.on('SIGINT', () => undefined);
  process.on('SIGTERM', () => {
    stopping.abort();
  });
  const stopRequested = new Promise<void>((resolve) => {
    stopping.signal.addEventListener('abort', () => {
      resolve();
    });
  });
  return {
    settings: JSON.parse(process.env[SETTINGS_VARIABLE] ?? '{}') as Settings,
    stopping: stopping.signal,
    stopRequested,
    ready: () => void process.send?.('ready'),
  };
}

/**
 * Does a process's work and lets the process end. What the work throws becomes a line on standard error and exit code 1: the
 * demo tells it.
 */
export async function work(run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exit(1);
  }
  process.removeAllListeners('disconnect'); // the channel would keep the process alive
  if (process.connected) process.disconnect();
}
