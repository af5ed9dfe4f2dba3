import type { Cluster } from '../../base/cluster.ts';
import { TailraceError } from '../../base/errors.ts';
import type { FetchOptions, FetchPosition, Log, PartitionEnds } from '../../broker/log.ts';
import type { LogRecord } from '../../broker/record.ts';

/** A way to a log. While it is not open, the log is as good as gone for whoever reads through it. */
export class LogPath implements Log {
  isOpen = true;
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  get capabilities(): Log['capabilities'] {
    return this.#log.capabilities;
  }

  get cluster(): Cluster | undefined {
    return this.#log.cluster;
  }

  partitionCount(topic: string): Promise<number> {
    return this.#ask((log) => log.partitionCount(topic));
  }

  ends(topic: string): Promise<PartitionEnds[]> {
    return this.#ask((log) => log.ends(topic));
  }

  offsetsAt(topic: string, time: Date): Promise<FetchPosition[]> {
    return this.#ask((log) => log.offsetsAt(topic, time));
  }

  fetch(positions: readonly FetchPosition[], options: FetchOptions = {}): Promise<LogRecord[]> {
    return this.#ask((log) => log.fetch(positions, options));
  }

  /** The log stays its owner's. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  async #ask<Answer>(ask: (log: Log) => Promise<Answer>): Promise<Answer> {
    this.#assertOpen();
    const answer = await ask(this.#log);
    this.#assertOpen();
    return answer;
  }

  #assertOpen(): void {
    if (this.isOpen) return;
    throw new TailraceError('TIMEOUT', 'The log does not answer: the way to it is closed.', { retryable: true });
  }
}
