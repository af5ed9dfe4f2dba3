import type pg from 'pg';
import { closeClient, destroyClient, openClient } from '../postgres/connection.ts';

/** How long a query may still take once nobody needs its answer any more. */
const GRACE_MS = 2_000;

/**
 * The plain connection that a source asks its questions on. When the reading is over, by its signal or by {@link close}, a
 * server that does not answer is not waited for: what was asked is rejected soon after.
 */
export class ControlConnection {
  readonly client: pg.Client;
  /** Fires, with the error, when the connection is lost. */
  readonly lost: AbortSignal;
  readonly #signal: AbortSignal;
  readonly #onAbort = (): void => {
    this.#giveUpSoon();
  };
  #timer: NodeJS.Timeout | undefined;
  #closed: Promise<void> | undefined;

  private constructor(client: pg.Client, lost: AbortSignal, signal: AbortSignal) {
    this.client = client;
    this.lost = lost;
    this.#signal = signal;
    if (signal.aborted) this.#giveUpSoon();
    else signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  static async open(
    connectionString: string,
    applicationName: string,
    signal: AbortSignal,
  ): Promise<ControlConnection> {
    const lost = new AbortController();
    const client = await openClient({
      connectionString,
      applicationName,
      // A policy that hides rows makes an error of a query, and not a hole in its answer.
      settings: { plan_cache_mode: 'force_custom_plan', row_security: 'off' },
      onLost: (error) => {
        lost.abort(error);
      },
    });
    askOneAtATime(client);
    return new ControlConnection(client, lost.signal, signal);
  }

  /** Waits for `last`, but no longer than a server takes that is well, and closes. May be called more than once. */
  close(last: () => Promise<unknown> = () => Promise.resolve()): Promise<void> {
    return (this.#closed ??= this.#close(last));
  }

  async #close(last: () => Promise<unknown>): Promise<void> {
    this.#giveUpSoon();
    await last().catch(() => undefined);
    clearTimeout(this.#timer);
    this.#signal.removeEventListener('abort', this.#onAbort);
    await closeClient(this.client);
  }

  #giveUpSoon(): void {
    this.#timer ??= setTimeout(() => {
      destroyClient(this.client);
    }, GRACE_MS);
  }
}

/** Several parts of a source ask on one connection, each in its own time; `pg` will not queue what they ask for long. */
function askOneAtATime(client: pg.Client): void {
  const ask = client.query.bind(client) as (...question: unknown[]) => Promise<unknown>;
  let last: Promise<unknown> = Promise.resolve();
  const askNext = (...question: unknown[]): Promise<unknown> => {
    const answer = last.then(() => ask(...question));
    last = answer.catch(() => undefined);
    return answer;
  };
  client.query = askNext as typeof client.query;
}
