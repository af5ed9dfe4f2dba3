import { TailraceError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { lsn, type Lsn } from '../../base/lsn.ts';
import { pause, Signal } from '../../base/signal.ts';
import { sourceBatch } from '../batch.ts';
import { encodeCheckpoint, encodeProgress, type Checkpoint } from '../place.ts';
import type { SourceBatch, SourceReader, SourceStatus } from '../source.ts';
import type { Upkeep } from '../upkeep.ts';
import type { CheckpointClock } from './checkpoint-clock.ts';
import type { OutboxStream, StreamedRows } from './outbox-stream.ts';
import type { ReplicationConnection } from './replication-connection.ts';

export interface WalReaderParts {
  readonly upkeep: Upkeep;
  readonly clock: CheckpointClock;
  readonly logger: Logger;
  /** The log holds everything up to here. */
  readonly end: Lsn;
  /** 0 where the server has none. */
  readonly walSenderTimeoutMs: number;
  /** Opens the stream with this reader's callbacks. */
  readonly connect: (callbacks: {
    onReplyRequested: () => void;
    onData: () => void;
    onEnd: (error: TailraceError) => void;
  }) => Promise<{ stream: OutboxStream; connection: ReplicationConnection }>;
  /** Called when messages were found that the WAL did not bring: it must not be read from the same slot again. */
  readonly onGap: (reason: string) => void;
  readonly close: () => Promise<void>;
}

/** Reading pauses above so many waiting rows, and goes on below half of them. */
const MOST_WAITING_ROWS = 20_000;
/** A batch of so many rows says that they come fast; one of so many is worth an append at once. */
const FAST_BATCH_ROWS = 64;
const LARGE_BATCH_ROWS = 2_000;
const GATHER_MS = 4;
const ACKNOWLEDGE_INTERVAL_MS = 100;
const CHECKPOINT_INTERVAL_MS = 1_000;
/** With nothing to append, the place moves on this often or after so much WAL: each move is itself a little WAL. */
const IDLE_ADVANCE_MS = 10_000;
const IDLE_ADVANCE_BYTES = 16n * 1024n * 1024n;
const DEFAULT_TIMEOUT_MS = 60_000;

/** Streams the outbox from the WAL and acknowledges what its batches have made durable, nothing more. */
export class WalReader implements SourceReader {
  readonly status: SourceStatus = { mode: 'wal' };
  readonly #parts: WalReaderParts;
  readonly #wake = new Signal();
  readonly #timers: NodeJS.Timeout[] = [];
  #stream: OutboxStream | undefined;
  #connection: ReplicationConnection | undefined;
  #failure: TailraceError | undefined;
  /** The end of the batch that the relay is appending, and of the last one that is durable. */
  #handedOut: Lsn;
  #durable: Lsn;
  #acknowledged: Lsn = lsn(0n);
  /** Rows were handed out since the last checkpoint. */
  #dirty = true;
  /** In the last batch. */
  #lastRows = 0;
  #movedAtMs = performance.now();
  #heardAtMs = performance.now();
  #ticking: Promise<void> = Promise.resolve();

  private constructor(parts: WalReaderParts) {
    this.#parts = parts;
    this.#handedOut = parts.end;
    this.#durable = parts.end;
  }

  static async open(parts: WalReaderParts): Promise<WalReader> {
    const reader = new WalReader(parts);
    const { stream, connection } = await parts.connect({
      onReplyRequested: () => {
        reader.#sendStatus(false);
      },
      onData: () => {
        reader.#onData();
      },
      onEnd: (error) => {
        reader.fail(error);
      },
    });
    reader.#stream = stream;
    reader.#connection = connection;
    reader.#startTimers();
    return reader;
  }

  #startTimers(): void {
    const timeoutMs = this.#parts.walSenderTimeoutMs || DEFAULT_TIMEOUT_MS;
    this.#every(timeoutMs / 3, () => {
      this.#checkSilence(timeoutMs);
      this.#sendStatus(false);
    });
    this.#every(ACKNOWLEDGE_INTERVAL_MS, () => {
      if (this.#durable > this.#acknowledged) this.#sendStatus(false);
    });
    this.#every(CHECKPOINT_INTERVAL_MS, () => {
      if (this.#failure === undefined) this.#ticking = this.#tick(this.#wantsCheckpoint());
    });
  }

  #every(intervalMs: number, run: () => void): void {
    this.#timers.push(setInterval(run, intervalMs));
  }

  #onData(): void {
    this.#heardAtMs = performance.now();
    const waiting = this.#stream?.size ?? 0;
    if (waiting >= MOST_WAITING_ROWS) this.#connection?.hold();
    if (waiting > 0 || this.#checkpointDue()) this.#wake.notify();
  }

  async next(signal: AbortSignal): Promise<SourceBatch> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      signal.throwIfAborted();
      await this.#gather(signal);
      const batch = this.#take();
      if (batch !== undefined) return batch;
      await this.#wake.wait(Infinity, signal);
    }
  }

  /** While rows come fast, waits a little for more: fewer, larger appends leave the server more time to decode. */
  async #gather(signal: AbortSignal): Promise<void> {
    const waiting = this.#stream?.size ?? 0;
    if (this.#lastRows < FAST_BATCH_ROWS || waiting === 0 || waiting >= LARGE_BATCH_ROWS) return;
    this.#lastRows = 0; // not twice for one batch
    await pause(GATHER_MS, signal);
  }

  #take(): SourceBatch | undefined {
    const stream = this.#stream;
    if (stream === undefined || (stream.size === 0 && !this.#checkpointDue())) return undefined;
    const streamed = stream.take();
    const checkpoint = this.#checkpoint(streamed);
    if (checkpoint !== undefined) {
      this.#dirty = false;
      stream.passedLogged();
    }
    this.#lastRows = streamed.rows.ids.length;
    if (this.#lastRows > 0) this.#noticeRows();
    this.#handedOut = streamed.end;
    this.#movedAtMs = performance.now();
    return sourceBatch(streamed.rows, encodeProgress(streamed.end), checkpoint && encodeCheckpoint(checkpoint));
  }

  #checkpoint(streamed: StreamedRows): Checkpoint | undefined {
    try {
      return this.#parts.clock.append(streamed);
    } catch (error) {
      this.#parts.onGap(messageOf(error));
      throw error;
    }
  }

  #noticeRows(): void {
    this.#dirty = true;
    this.#parts.upkeep.noticeActivity();
    this.#heardAtMs = performance.now(); // silence that our own hold caused does not count
    this.#connection?.unhold();
  }

  #checkpointDue(): boolean {
    const awaited = this.#parts.clock.awaits;
    return awaited !== undefined && (this.#stream?.received ?? 0n) >= awaited;
  }

  #wantsCheckpoint(): boolean {
    if (this.#dirty) return true;
    const ahead = (this.#stream?.received ?? this.#durable) - this.#durable;
    return ahead >= IDLE_ADVANCE_BYTES || (ahead > 0n && performance.now() - this.#movedAtMs >= IDLE_ADVANCE_MS);
  }

  /** Takes a snapshot and asks the server how far it has sent. */
  async #tick(isDue: boolean): Promise<void> {
    try {
      await this.#parts.clock.tick(isDue);
      if (this.#parts.clock.awaits === undefined) return;
      this.#sendStatus(true);
      if (this.#checkpointDue()) this.#wake.notify();
    } catch (error) {
      this.#parts.logger.warn({ error: messageOf(error) }, 'taking a checkpoint failed; it is tried again');
    }
  }

  durable(): void {
    this.#durable = this.#handedOut;
  }

  #sendStatus(replyRequested: boolean): void {
    this.#acknowledged = this.#durable;
    this.#connection?.sendStatus(this.#stream?.received ?? this.#durable, this.#durable, replyRequested);
  }

  /** Asks a silent server for a reply, and gives the connection up if none comes. */
  #checkSilence(timeoutMs: number): void {
    if (this.#connection?.isHeld === true) return;
    const silentMs = performance.now() - this.#heardAtMs;
    if (silentMs >= timeoutMs) {
      this.fail(
        new TailraceError(
          'REPLICATION_FAILED',
          `The server has sent nothing for ${Math.round(silentMs)} ms, expected a sign of life within ${timeoutMs} ms. The stream is opened again.`,
          { retryable: true },
        ),
      );
    } else if (silentMs >= timeoutMs / 3) this.#sendStatus(true);
  }

  /** Ends the reading: the next call of `next` rejects with `error`, or with what ended it before. */
  fail(error: TailraceError): void {
    this.#failure ??= error;
    this.#wake.notify();
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#sendStatus(false);
    await Promise.all([this.#connection?.close(), this.#parts.close()]);
    await this.#ticking; // its query has been answered, or cut off
  }
}
