import type pg from 'pg';
import { backoffMs } from '../../base/backoff.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { Place } from '../place.ts';
import type { PollingReader } from '../polling/polling-reader.ts';
import type { SourceBatch, SourceReader, SourceStatus } from '../source.ts';
import { awaitVisible, type CreatedSlot, type SlotCreation } from './slot.ts';

export interface SweepThenStreamParts {
  readonly client: pg.ClientBase;
  readonly polling: PollingReader;
  /** Starts to create the slot. */
  readonly create: () => SlotCreation;
  /** Why there is no use in creating it yet; the first attempt is then made after a wait. */
  readonly refused?: string;
  readonly logger: Logger;
  /** Streams from the new slot; `place` says what the log holds by then. Takes over what the polling reader uses. */
  readonly stream: (place: Place) => Promise<SourceReader>;
}

/** How long to wait before a slot is asked for again. What refused it may be mended by then. */
const RETRY = { initialMs: 1_000, maxMs: 60_000 };

/**
 * Delivers by polling while a slot is being created, and goes over to the slot when it exists. After that moment one more
 * pass is made, which sees everything that the slot will not stream; what it sees beyond that is skipped in the stream.
 * Where there is no slot to be had, polling goes on, and it is asked for again now and then.
 *
 * States: creating → last pass → streaming, or creating → refused → creating.
 */
export class SweepThenStream implements SourceReader {
  readonly #parts: SweepThenStreamParts;
  #state: 'creating' | 'last pass' | 'streaming' | 'refused' = 'creating';
  #creation: SlotCreation | undefined;
  #slot: CreatedSlot | undefined;
  #attempts = 0;
  #retryAtMs = 0;
  #refusal: SourceStatus | undefined;
  #reader: SourceReader;
  #closed: Promise<void> | undefined;

  constructor(parts: SweepThenStreamParts) {
    this.#parts = parts;
    this.#reader = parts.polling;
    if (parts.refused === undefined) this.#create();
    else this.#refuse(parts.refused);
  }

  get status(): SourceStatus {
    return this.#refusal ?? this.#reader.status;
  }

  #create(): void {
    this.#state = 'creating';
    const creation = this.#parts.create();
    this.#creation = creation;
    creation.done.then(
      (slot) => {
        this.#slot = slot;
        this.#refusal = undefined;
      },
      (error: unknown) => {
        if (this.#closed === undefined) this.#refuse(reasonOf(error));
        void creation.close();
      },
    );
  }

  #refuse(reason: string): void {
    this.#attempts += 1;
    this.#retryAtMs = performance.now() + backoffMs(this.#attempts, RETRY);
    if (this.#refusal?.reason !== reason) {
      this.#refusal = { mode: 'polling', reason };
      this.#parts.logger.warn(this.#refusal, 'the WAL cannot be read; polling the outbox instead');
    }
    this.#state = 'refused';
  }

  async next(signal: AbortSignal): Promise<SourceBatch> {
    const { polling } = this.#parts;
    while (this.#reader === polling) {
      signal.throwIfAborted();
      if (polling.atRest) await this.#betweenPasses(signal);
      if (this.#reader !== polling) break;
      const batch = await polling.step();
      if (batch !== undefined) return batch;
      if (polling.atRest && this.#slot === undefined) await this.#rest(signal);
    }
    return this.#reader.next(signal);
  }

  /** A step towards the slot, if one can be made: also where every pass finds something, and there is no rest. */
  async #betweenPasses(signal: AbortSignal): Promise<void> {
    if (this.#state === 'refused') {
      if (performance.now() >= this.#retryAtMs) this.#create();
    } else if (this.#slot === undefined) {
      return;
    } else if (this.#state === 'creating') {
      await awaitVisible(this.#parts.client, this.#slot.snapshot, signal);
      signal.throwIfAborted();
      this.#state = 'last pass';
    } else await this.#goOver(this.#slot);
  }

  async #rest(signal: AbortSignal): Promise<void> {
    const rested = this.#parts.polling.rest(signal);
    if (this.#state === 'refused') await rested;
    else await Promise.race([rested, this.#creation?.done.catch(() => undefined)]);
  }

  async #goOver({ consistentPoint }: CreatedSlot): Promise<void> {
    await this.#creation?.close();
    this.#reader = await this.#parts.stream({ ...this.#parts.polling.place, end: consistentPoint });
    this.#state = 'streaming';
  }

  durable(): void {
    this.#reader.durable();
  }

  close(): Promise<void> {
    return (this.#closed ??= this.#close());
  }

  async #close(): Promise<void> {
    await this.#creation?.close(); // by the connection that the reader closes
    await this.#reader.close();
  }
}

/** Why there is no slot: a sentence of ours stays as it is. */
export class NoWal extends Error {}

function reasonOf(error: unknown): string {
  return error instanceof NoWal ? error.message : `the server refused the replication slot: ${messageOf(error)}`;
}
