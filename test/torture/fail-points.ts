import type { History } from './history.ts';

/**
 * What happens at a point: the process is killed there, or stopped until somebody lets it go on, or its event loop is blocked for
 * {@link BLOCK_MS}, and then it goes on by itself.
 */
export type FailAction = 'kill' | 'stop' | 'block';

/** Several times the lease of a consumer. */
const BLOCK_MS = 12_000;

/** Asks for an action when a point is reached for the `after`-th time from now. */
export interface ArmedPoint {
  readonly point: string;
  readonly action: FailAction;
  readonly after: number;
}

const SIGNAL = { kill: 'SIGKILL', stop: 'SIGSTOP' } as const;

/** Named places in a process at which it can be made to die or to stand still. They stand around the product, never in it. */
export class FailPoints {
  readonly #history: History;
  #armed: ArmedPoint | undefined;
  #left = 0;

  constructor(history: History) {
    this.#history = history;
  }

  /** Hears what the run asks for. */
  onMessage(message: unknown): void {
    if (!isArmedPoint(message)) return;
    this.#armed = message;
    this.#left = message.after;
  }

  reach(point: string): void {
    if (this.#armed?.point !== point) return;
    this.#left -= 1;
    if (this.#left > 0) return;
    const { action } = this.#armed;
    this.#armed = undefined;
    this.#history.write('fail-point', 'info', { point, action });
    if (action === 'block') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BLOCK_MS);
    else process.kill(process.pid, SIGNAL[action]);
  }
}

function isArmedPoint(message: unknown): message is ArmedPoint {
  return typeof message === 'object' && message !== null && 'point' in message;
}
