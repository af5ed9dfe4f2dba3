/**
 * A wake-up that cannot be lost: a `notify` between two waits ends the next wait at once. Any number of waits may be
 * pending; a notify ends them all.
 */
export class Signal {
  #raised = false;
  #waiting = new Set<() => void>();

  notify(): void {
    this.#raised = true;
    for (const wake of [...this.#waiting]) wake();
  }

  /**
   * Resolves `true` at the next notify (or at once if one came since the last wait), `false` after `timeoutMs` or when
   * `abort` fires.
   */
  wait(timeoutMs: number, abort?: AbortSignal): Promise<boolean> {
    if (this.#raised) {
      this.#raised = false;
      return Promise.resolve(true);
    }
    if (abort?.aborted === true || timeoutMs <= 0) return Promise.resolve(false);
    return new Promise((resolve) => {
      const finish = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(finish);
        abort?.removeEventListener('abort', finish);
        const raised = this.#raised;
        if (this.#waiting.size === 0) this.#raised = false;
        resolve(raised);
      };
      const timer = Number.isFinite(timeoutMs) ? setTimeout(finish, timeoutMs) : undefined;
      this.#waiting.add(finish);
      abort?.addEventListener('abort', finish, { once: true });
    });
  }
}

/** The longest wait that a timer of JavaScript can hold. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Resolves after `ms`, or at once when `abort` fires. Never rejects. */
export function pause(ms: number, abort?: AbortSignal): Promise<void> {
  return new Signal().wait(ms, abort).then(() => undefined);
}
