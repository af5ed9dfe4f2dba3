import { TailraceError } from '../base/errors.ts';

/** What handlers have after their signal has fired, before they are given up. */
export const ABORT_GRACE_MS = 1_000;

/** A handler was given up while it ran. It may still run; `reason` is what its attempt failed with. */
export class AbandonedHandler extends Error {
  readonly reason: TailraceError;

  constructor(reason: TailraceError) {
    super(reason.message);
    this.reason = reason;
  }
}

/** One call of a handler, which ends whether the handler does or not. */
export class HandlerCall {
  readonly #limitMs: number | false;
  readonly #parent: AbortSignal;
  #own: AbortController | undefined;
  #overdue: TailraceError | undefined;
  readonly #onParent = (): void => this.#own?.abort(this.#parent.reason);

  /** `limitMs`: how long the handler may take. `parent` is a signal that it is to hear of too. */
  constructor(limitMs: number | false, parent: AbortSignal) {
    this.#limitMs = limitMs;
    this.#parent = parent;
  }

  /** Fires when the parent fires, and when the handler has taken too long. Made when it is first asked for. */
  get signal(): AbortSignal {
    if (this.#limitMs === false) return this.#parent;
    if (this.#own === undefined) {
      this.#own = new AbortController();
      if (this.#overdue !== undefined) this.#own.abort(this.#overdue);
      else if (this.#parent.aborted) this.#onParent();
      else this.#parent.addEventListener('abort', this.#onParent, { once: true });
    }
    return this.#own.signal;
  }

  /**
   * Calls it and waits for it. After the limit its signal fires; one that has not ended {@link ABORT_GRACE_MS} later is
   * given up, and `AbandonedHandler` thrown. One that throws after the limit has failed by `TIMEOUT`.
   */
  async run(handler: () => unknown): Promise<void> {
    if (this.#limitMs === false) {
      await handler();
      return;
    }
    const limitMs = this.#limitMs;
    let timer: NodeJS.Timeout | undefined;
    const givenUp = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        const overdue = handlerOverdue(limitMs);
        this.#overdue = overdue;
        this.#own?.abort(overdue);
        timer = setTimeout(() => {
          reject(new AbandonedHandler(overdue));
        }, ABORT_GRACE_MS);
      }, limitMs);
    });
    try {
      await Promise.race([handler(), givenUp]);
    } catch (error) {
      if (this.#overdue === undefined || error instanceof AbandonedHandler) throw error;
      throw handlerOverdue(limitMs, error);
    } finally {
      clearTimeout(timer);
      this.#parent.removeEventListener('abort', this.#onParent);
    }
  }
}

function handlerOverdue(limitMs: number, cause?: unknown): TailraceError {
  return new TailraceError(
    'TIMEOUT',
    `The handler took longer than ${limitMs} ms. Give what it waits for a limit, watch context.signal, or raise maxHandlerMs.`,
    { cause },
  );
}
