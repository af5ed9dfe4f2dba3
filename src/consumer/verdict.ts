import { TailraceError } from '../base/errors.ts';

/** What a handler has said of its message, in place of handling it. */
export type Verdict =
  | { readonly verdict: 'reject'; readonly reason: string }
  | { readonly verdict: 'release'; readonly delayMs: number | undefined };

/** How long to wait before a message that was given back is handled again. */
export interface ReleaseOptions {
  /**
   * In milliseconds: it is parked meanwhile, and where its key has an order, later messages of the key line up behind it.
   * @defaultValue at once: by another member in a work queue, if there is one; else by this one, after a short wait
   */
  readonly delayMs?: number;
}

/** Ends a handler that has said what is to become of its message. */
export class HandlerVerdict extends Error {
  readonly verdict: Verdict;

  constructor(verdict: Verdict) {
    super(verdict.verdict === 'reject' ? `Rejected: ${verdict.reason}` : 'Given back');
    this.name = 'HandlerVerdict';
    this.verdict = verdict;
  }
}

/** What one call of a handler says. The first verdict stands, whether the handler lets its error out or not. */
export class Verdicts {
  #said: HandlerVerdict | undefined;

  readonly reject = (reason: string): never => {
    throw this.#say({ verdict: 'reject', reason });
  };

  readonly release = ({ delayMs }: ReleaseOptions = {}): never => {
    if (delayMs !== undefined && !(Number.isFinite(delayMs) && delayMs >= 0)) {
      throw new TailraceError(
        'INVALID_OPTION',
        `context.release: delayMs is ${String(delayMs)}. Expected milliseconds, 0 or more.`,
      );
    }
    throw this.#say({ verdict: 'release', delayMs });
  };

  /** Runs a handler, and throws what it has said. */
  async hear(handler: () => unknown): Promise<void> {
    try {
      await handler();
    } catch (error) {
      throw this.#said ?? error;
    }
    if (this.#said !== undefined) throw this.#said;
  }

  #say(verdict: Verdict): HandlerVerdict {
    this.#said ??= new HandlerVerdict(verdict);
    return this.#said;
  }
}

/** The verdict that a handler failed with, if it was one. */
export function verdictOf(error: unknown): Verdict | undefined {
  return error instanceof HandlerVerdict ? error.verdict : undefined;
}
