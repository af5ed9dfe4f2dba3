import type pg from 'pg';
import { pause } from '../../base/signal.ts';
import { sourceBatch } from '../batch.ts';
import { encodeCheckpoint, encodeProgress, type Place } from '../place.ts';
import { PositionSet } from '../positions.ts';
import type { SourceBatch, SourceReader, SourceStatus } from '../source.ts';
import type { Upkeep } from '../upkeep.ts';
import { Sweep } from './sweep.ts';

export interface PollingReaderParts {
  readonly client: pg.ClientBase;
  readonly quotedSchema: string;
  readonly upkeep: Upkeep;
  readonly place: Place;
  readonly status: SourceStatus;
  /** The wait after a pass that found something, doubled after each that did not. */
  readonly minIntervalMs: number;
  readonly maxIntervalMs: number;
  readonly pageRows: number;
  readonly close: () => Promise<void>;
}

/** Sweeps the outbox again and again, each time from the snapshot that the last pass ended with. */
export class PollingReader implements SourceReader {
  readonly status: SourceStatus;
  readonly #parts: PollingReaderParts;
  #place: Place;
  #sweep: Sweep | undefined;
  #intervalMs: number;

  constructor(parts: PollingReaderParts) {
    this.#parts = parts;
    this.status = parts.status;
    this.#place = parts.place;
    this.#intervalMs = parts.minIntervalMs;
  }

  /** What the log holds, once all batches given are durable. Exact while the reader is {@link atRest}. */
  get place(): Place {
    return this.#place;
  }

  /** Whether the last pass is over and the next has not begun. */
  get atRest(): boolean {
    return this.#sweep === undefined;
  }

  async next(signal: AbortSignal): Promise<SourceBatch> {
    for (;;) {
      signal.throwIfAborted();
      const batch = await this.step();
      if (batch !== undefined) return batch;
      if (this.atRest) await this.rest(signal);
    }
  }

  /** The next page of the pass. `undefined` if it held nothing new. */
  async step(): Promise<SourceBatch | undefined> {
    const { client, quotedSchema, pageRows, upkeep } = this.#parts;
    this.#sweep ??= new Sweep(client, quotedSchema, this.#place, pageRows);
    const { rows, checkpoint } = await this.#sweep.next();
    if (checkpoint !== undefined) {
      this.#sweep = undefined;
      const inLog = PositionSet.of(new Float64Array(), checkpoint.beyond);
      this.#place = { end: this.#place.end, snapshot: checkpoint.snapshot, inLog };
    }
    if (rows.ids.length === 0) return undefined;
    upkeep.noticeActivity();
    this.#intervalMs = this.#parts.minIntervalMs;
    return sourceBatch(rows, encodeProgress(this.#place.end), checkpoint && encodeCheckpoint(checkpoint));
  }

  /** Waits between two passes. */
  async rest(signal: AbortSignal): Promise<void> {
    await pause(this.#intervalMs, signal);
    this.#intervalMs = Math.min(this.#parts.maxIntervalMs, this.#intervalMs * 2);
  }

  durable(): void {
    // Nothing to acknowledge: progress and checkpoint are in the log itself.
  }

  close(): Promise<void> {
    return this.#parts.close();
  }
}
