import type pg from 'pg';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { isTransient } from '../../postgres/sqlstate.ts';
import type { Place } from '../place.ts';
import type { PollingReader } from '../polling/polling-reader.ts';
import type { SourceBatch, SourceReader, SourceStatus } from '../source.ts';
import { awaitVisible, type CreatedSlot, type SlotCreation } from './slot.ts';

export interface SweepThenStreamParts {
  readonly client: pg.ClientBase;
  readonly polling: PollingReader;
  readonly creation: SlotCreation;
  readonly logger: Logger;
  /** Streams from the new slot; `place` says what the log holds by then. Takes over what the polling reader uses. */
  readonly stream: (place: Place) => Promise<SourceReader>;
}

/**
 * Delivers by polling while a slot is being created, and goes over to the slot when it exists. After that moment one more
 * pass is made, which sees everything that the slot will not stream; what it sees beyond that is skipped in the stream.
 * Where the server refuses the slot, polling goes on for good.
 *
 * States: creating → last pass → streaming, or creating → refused.
 */
export class SweepThenStream implements SourceReader {
  readonly #parts: SweepThenStreamParts;
  #state: 'creating' | 'last pass' | 'streaming' | 'refused' = 'creating';
  #slot: CreatedSlot | undefined;
  #failure: { readonly error: unknown } | undefined;
  #refusal: SourceStatus | undefined;
  #reader: SourceReader;

  constructor(parts: SweepThenStreamParts) {
    this.#parts = parts;
    this.#reader = parts.polling;
    parts.creation.done.then(
      (slot) => {
        this.#slot = slot;
      },
      (error: unknown) => {
        if (isTransient(error)) this.#failure = { error };
        else this.#refuse(messageOf(error));
      },
    );
  }

  get status(): SourceStatus {
    return this.#refusal ?? this.#reader.status;
  }

  #refuse(reason: string): void {
    this.#state = 'refused';
    this.#refusal = { mode: 'polling', reason: `the server refused the replication slot: ${reason}` };
    this.#parts.logger.warn(this.#refusal, 'the WAL cannot be read; polling the outbox instead');
  }

  async next(signal: AbortSignal): Promise<SourceBatch> {
    const { polling } = this.#parts;
    while (this.#reader === polling) {
      signal.throwIfAborted();
      if (this.#failure !== undefined) throw this.#failure.error;
      const batch = await polling.step();
      if (batch !== undefined) return batch;
      if (polling.atRest) await this.#afterPass(signal);
    }
    return this.#reader.next(signal);
  }

  async #afterPass(signal: AbortSignal): Promise<void> {
    const { client, creation, polling, stream } = this.#parts;
    if (this.#state === 'refused') await polling.rest(signal);
    else if (this.#slot === undefined) {
      await Promise.race([polling.rest(signal), creation.done.catch(() => undefined)]);
    } else if (this.#state === 'creating') {
      await awaitVisible(client, this.#slot.snapshot, signal);
      this.#state = 'last pass';
    } else {
      await creation.close();
      this.#reader = await stream({ ...polling.place, end: this.#slot.consistentPoint });
      this.#state = 'streaming';
    }
  }

  durable(): void {
    this.#reader.durable();
  }

  async close(): Promise<void> {
    await this.#parts.creation.close();
    await this.#reader.close();
  }
}
