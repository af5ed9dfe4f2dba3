import { messageOf, TailraceError } from '../../base/errors.ts';
import { backoffMs } from '../../base/backoff.ts';
import type { Logger } from '../../base/logger.ts';
import { Signal } from '../../base/signal.ts';

export interface LeaseKeeperOptions {
  /** Renews the lease; false says that it belongs to somebody else now. */
  readonly renew: () => Promise<boolean>;
  readonly leaseMs: number;
  /** On the monotonic clock, just before the request that took the lease was sent. */
  readonly takenAtMs: number;
  readonly logger: Logger;
}

/**
 * Renews a lease every third of it, and says when it may no longer be trusted: when it belongs to somebody else, or when
 * no renewal succeeded for as long as it lasts, counted on this machine's monotonic clock from before the last request that
 * did succeed. So trust ends here before the lease ends there, whatever the clocks say.
 */
export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions;
  readonly #lost = new AbortController();
  readonly #hurry = new Signal();
  readonly #running: Promise<void>;
  #deadline: NodeJS.Timeout | undefined;

  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    this.#trustFrom(options.takenAtMs);
    this.#running = this.#run();
  }

  /** Fires when the lease is lost or given up; its reason is a TailraceError, `LEASE_LOST` or `STOPPED`. */
  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  /** Renews at once, and so reads what the row of the lease says. */
  renewNow(): void {
    this.#hurry.notify();
  }

  /** Ends the trust in the lease. Only the first reason counts. */
  lose(reason: TailraceError): void {
    clearTimeout(this.#deadline);
    this.#lost.abort(reason);
  }

  /** Resolves once nothing more is asked of the server. */
  async stop(): Promise<void> {
    this.lose(new TailraceError('STOPPED', 'The right to append was given up.'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const intervalMs = this.#options.leaseMs / 3;
    for (let failures = 0; !this.signal.aborted;) {
      failures = (await this.#beat()) ? 0 : failures + 1;
      await this.#hurry.wait(failures === 0 ? intervalMs : retryAfterMs(failures, intervalMs), this.signal);
    }
  }

  /** Whether the server was asked and has answered. */
  async #beat(): Promise<boolean> {
    const startedAtMs = performance.now();
    try {
      if (await this.#options.renew()) this.#trustFrom(startedAtMs);
      else this.lose(takenOver());
      return true;
    } catch (error) {
      this.#options.logger.warn({ error: messageOf(error) }, 'the right to append could not be renewed; trying again');
      return false;
    }
  }

  #trustFrom(startedAtMs: number): void {
    clearTimeout(this.#deadline);
    if (this.signal.aborted) return;
    const remainingMs = startedAtMs + this.#options.leaseMs - performance.now();
    this.#deadline = setTimeout(() => this.lose(expired(this.#options.leaseMs)), Math.max(0, remainingMs));
  }
}

function retryAfterMs(failures: number, intervalMs: number): number {
  return backoffMs(failures, { initialMs: 20, maxMs: intervalMs });
}

/** The reason when another relay has taken the lease. */
export function takenOver(): TailraceError {
  return new TailraceError(
    'LEASE_LOST',
    'Another relay has taken over the right to append to this log. Acquire a new writer to become its standby.',
  );
}

/** The reason when the connection leads to another cluster or timeline than the one on which the lease was taken. */
export function leftBehind(): TailraceError {
  return new TailraceError(
    'LEASE_LOST',
    'The right to append was held on another cluster or timeline than the one to which the connection leads now. Acquire a new writer.',
  );
}

function expired(leaseMs: number): TailraceError {
  return new TailraceError(
    'LEASE_LOST',
    `The right to append could not be renewed for ${leaseMs} ms, so another relay may take it. Check the connection to the database, and whether this process was stopped for that long; then acquire a new writer.`,
  );
}
