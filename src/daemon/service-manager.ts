import { spawn } from 'node:child_process';
import type { Logger } from '../base/logger.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Whoever supervises this process and wants to hear of it. */
export interface ServiceManager {
  /** It works; from now on, signs of life are given where they are asked for. */
  ready(): void;
  /** It ends. */
  stopping(): void;
}

/**
 * Tells systemd, if the environment names its socket. Node cannot write to such a socket (a datagram one), so the program
 * `systemd-notify` does: the unit needs `NotifyAccess=all`.
 *
 * @see https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
 */
export function serviceManager(env: Environment, logger: Logger): ServiceManager {
  const silent = { ready: () => undefined, stopping: () => undefined };
  return (env['NOTIFY_SOCKET'] ?? '') === '' ? silent : new Systemd(env, logger);
}

const LONGEST_WAIT_MS = 5_000;

class Systemd implements ServiceManager {
  readonly #env: Environment;
  readonly #logger: Logger;
  #timer: NodeJS.Timeout | undefined;
  #telling = 0;
  #hasFailed = false;

  constructor(env: Environment, logger: Logger) {
    this.#env = env;
    this.#logger = logger;
  }

  ready(): void {
    this.#send('READY=1');
    const intervalMs = watchdogIntervalMs(this.#env, process.pid);
    if (intervalMs === undefined) return;
    this.#timer = setInterval(() => {
      if (this.#telling === 0) this.#send('WATCHDOG=1'); // one that systemd has not taken yet says the same
    }, intervalMs);
    this.#timer.unref();
  }

  /** Signs of life go on: systemd wants them to the end. */
  stopping(): void {
    this.#send('STOPPING=1');
  }

  /** The program waits until systemd has taken the word; this process does not wait for the program. */
  #send(state: string): void {
    const { NOTIFY_SOCKET, PATH } = this.#env;
    const env = { NOTIFY_SOCKET, PATH };
    const child = spawn('systemd-notify', [state], { env, stdio: 'ignore', timeout: LONGEST_WAIT_MS });
    child.unref();
    this.#telling += 1;
    let isOver = false;
    const end = (failure: string | undefined): void => {
      if (isOver) return;
      isOver = true;
      this.#telling -= 1;
      if (failure !== undefined) this.#warnOnce(failure, state);
    };
    child.once('error', (error) => end(error.message));
    child.once('exit', (code, signal) => end(code === 0 ? undefined : `it ended with ${String(code ?? signal)}`));
  }

  #warnOnce(error: string, state: string): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#logger.warn(
      { error, state },
      'systemd could not be told; is systemd-notify installed, and does systemd answer?',
    );
  }
}

/** Half of what systemd waits; `undefined` if it waits for nothing, or for another process. */
export function watchdogIntervalMs({ WATCHDOG_USEC, WATCHDOG_PID }: Environment, pid: number): number | undefined {
  const waitMs = Number(WATCHDOG_USEC ?? '') / 1_000;
  if (!(waitMs > 0) || (WATCHDOG_PID !== undefined && Number(WATCHDOG_PID) !== pid)) return undefined;
  return Math.max(1, Math.floor(waitMs / 2));
}
