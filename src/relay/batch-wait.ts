import type { SourceBatch, SourceReader } from '../source/source.ts';

/** Waits for the next batch of a reader. The wait can be interrupted, and taken up again, without losing the batch. */
export class BatchWait {
  readonly #reader: SourceReader;
  readonly #signal: AbortSignal;
  /** What the reader was asked for and has not been handed on. */
  #pending: Promise<SourceBatch> | undefined;
  #isInterrupted = false;
  #wake: () => void = () => undefined;

  constructor(reader: SourceReader, signal: AbortSignal) {
    this.#reader = reader;
    this.#signal = signal;
  }

  /** The next batch; `undefined` if the wait was interrupted. The former batch must be durable. */
  async next(): Promise<SourceBatch | undefined> {
    const batch = this.#isInterrupted ? undefined : await this.#batchOrInterruption();
    if (batch === undefined) this.#isInterrupted = false;
    else this.#pending = undefined;
    return batch;
  }

  #batchOrInterruption(): Promise<SourceBatch | undefined> {
    this.#pending ??= this.#reader.next(this.#signal);
    const { promise, resolve, reject } = Promise.withResolvers<SourceBatch | undefined>();
    this.#pending.then(resolve, reject);
    this.#wake = () => resolve(undefined);
    return promise;
  }

  /** Ends the wait that is under way, else the next one. */
  interrupt(): void {
    this.#isInterrupted = true;
    this.#wake();
  }

  /** Resolves once the reader does nothing any more. Call it after the signal has fired; a batch that still comes is dropped. */
  async settled(): Promise<void> {
    await this.#pending?.catch(() => undefined);
  }
}
