import { backoffMs } from '../../base/backoff.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { pause, Signal } from '../../base/signal.ts';
import { partitionsOf } from './append-statement.ts';
import { Session } from './session.ts';

export interface WakeUpsOptions {
  readonly connectionString: string;
  readonly channel: string;
  readonly pollMinMs: number;
  readonly pollMaxMs: number;
  readonly logger: Logger;
}

/** A fetch that waits for news of its partitions. */
export interface ParkedFetch extends Disposable {
  /** Resolves `true` at news (or if some came since the last wait), `false` after `timeoutMs` or when `abort` fires. */
  wait(timeoutMs: number, abort: AbortSignal): Promise<boolean>;
}

const ANSWER_TIMEOUT_MS = 10_000;

/**
 * Wakes the fetches that wait for records: one session listens for all of them. It is opened when the first fetch waits, and
 * opened again for as long as it takes when it is lost; then everybody looks once, since notifications may have been
 * missed. Until then, and always, fetches look by themselves now and then.
 */
export class WakeUps {
  readonly #options: WakeUpsOptions;
  readonly #parked = new Map<number, Set<Signal>>();
  readonly #closing = new AbortController();
  #listening: Promise<void> | undefined;
  #isListening = false;
  /** How often partitions were said to have grown: each by itself, and all of them. */
  readonly #news = new Map<number, number>();
  #newsOfAll = 0;
  #lastNewsMs = performance.now();

  constructor(options: WakeUpsOptions) {
    this.#options = options;
  }

  /** Registers a fetch of these partitions. From now on it misses no news. Dispose ends that. */
  park(partitions: readonly number[]): ParkedFetch {
    const signal = new Signal();
    for (const partition of partitions) this.#add(partition, signal);
    return {
      wait: (timeoutMs, abort) => {
        this.#listening ??= this.#listen();
        return signal.wait(timeoutMs, abort);
      },
      [Symbol.dispose]: () => {
        for (const partition of partitions) this.#remove(partition, signal);
      },
    };
  }

  /** Says that partitions have grown: those of these numbers, or any. */
  wake(partitions?: readonly number[]): void {
    this.noteNews();
    if (partitions === undefined) this.#newsOfAll += 1;
    else for (const partition of partitions) this.#news.set(partition, (this.#news.get(partition) ?? 0) + 1);
    for (const partition of partitions ?? this.#parked.keys()) {
      this.#parked.get(partition)?.forEach((signal) => signal.notify());
    }
  }

  /** Says that something was found, so that more is likely soon. */
  noteNews(): void {
    this.#lastNewsMs = performance.now();
  }

  /** Whether what is committed from now on will be told of. */
  get isListening(): boolean {
    return this.#isListening;
  }

  /** A number that grows whenever a partition is said to have grown. */
  newsOf(partition: number): number {
    return this.#newsOfAll + (this.#news.get(partition) ?? 0);
  }

  /** How long a fetch is to wait before it looks by itself. */
  pollDelayMs(): number {
    const { pollMinMs, pollMaxMs } = this.#options;
    return pollDelayMs(performance.now() - this.#lastNewsMs, pollMinMs, pollMaxMs);
  }

  /** Stops listening. May be called more than once. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#listening;
  }

  #add(partition: number, signal: Signal): void {
    const signals = this.#parked.get(partition) ?? new Set();
    this.#parked.set(partition, signals.add(signal));
  }

  #remove(partition: number, signal: Signal): void {
    const signals = this.#parked.get(partition);
    signals?.delete(signal);
    if (signals?.size === 0) this.#parked.delete(partition);
  }

  async #listen(): Promise<void> {
    const closing = this.#closing.signal;
    for (let failures = 1; !closing.aborted; failures++) {
      await this.#listenOnce(() => (failures = 1));
      await pause(backoffMs(failures), closing);
    }
  }

  /** Listens until the connection is lost or this is closed. */
  async #listenOnce(onListening: () => void): Promise<void> {
    const lost = new AbortController();
    const session = new Session({
      connectionString: this.#options.connectionString,
      applicationName: 'tailrace listen',
      timeoutMs: ANSWER_TIMEOUT_MS,
      channel: this.#options.channel,
      onNotification: (payload) => this.wake(partitionsOf(payload)),
      onLost: (error) => {
        this.#isListening = false;
        lost.abort(error);
      },
    });
    try {
      await session.open();
      onListening();
      this.#isListening = true;
      this.wake();
      await pause(Infinity, AbortSignal.any([lost.signal, this.#closing.signal]));
      if (lost.signal.aborted) throw lost.signal.reason;
    } catch (error) {
      this.#options.logger.info({ error: messageOf(error) }, 'notifications are not heard; fetches poll meanwhile');
    } finally {
      this.#isListening = false;
      await session.close();
    }
  }
}

/**
 * The wait before the next look: as long as nothing has happened, so that each is twice the one before, within bounds.
 */
export function pollDelayMs(sinceNewsMs: number, minMs: number, maxMs: number): number {
  return Math.min(maxMs, Math.max(minMs, sinceNewsMs));
}
