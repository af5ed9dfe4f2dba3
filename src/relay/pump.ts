import { isTailraceError, type TailraceError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { Append, DeadLetters, LogBatch, LogWriter, UnroutableMessages } from '../broker/log.ts';
import type { Source, SourceBatch, SourceReader, SourceStatus } from '../source/source.ts';
import { BatchWait } from './batch-wait.ts';
import type { Router } from './router.ts';

export interface PumpParts {
  readonly source: Source;
  readonly writer: LogWriter;
  readonly router: Router;
  readonly logger: Logger;
  /** Called when a reader is open, and when it reads otherwise than before. */
  readonly onReading: (status: SourceStatus) => void;
  /** Called after each append, with what it made durable. */
  readonly onAppended: (done: Appended) => void;
}

/** What an append made durable. */
export interface Appended {
  readonly appends: readonly Append[];
  readonly unroutable: readonly UnroutableMessages[];
  /** When it was begun, in milliseconds since 1970. */
  readonly startedAt: number;
  /** Whether these were dead letters. */
  readonly isRetry: boolean;
}

/** The work of the relay that holds the right to append: reads in one mode until another is asked for, then in that one. */
export class Pump {
  readonly #parts: PumpParts;
  #wait: BatchWait | undefined;

  constructor(parts: PumpParts) {
    this.#parts = parts;
  }

  /** Rejects with the reason of the signal once it fires, or with what went wrong. */
  async run(signal: AbortSignal): Promise<never> {
    for (;;) await this.#readInOneMode(signal);
  }

  /** Says that operators have asked for something. */
  asked(): void {
    this.#wait?.interrupt();
  }

  /** From the opening of a reader until another mode is asked for: between two batches, with all before durable. */
  async #readInOneMode(leading: AbortSignal): Promise<void> {
    const { source, writer, logger } = this.#parts;
    const { mode } = writer.requests;
    const end = new AbortController();
    const signal = AbortSignal.any([leading, end.signal]);
    const reader = await source.open(writer, signal, mode);
    const wait = new BatchWait(reader, signal);
    this.#wait = wait;
    this.asked(); // before this, too, something may have been asked for
    try {
      await this.#pump(reader, wait, leading, () => writer.requests.mode !== mode);
      logger.info({ mode: writer.requests.mode ?? 'auto' }, 'another mode was asked for; reading goes on in it');
    } finally {
      this.#wait = undefined;
      end.abort();
      await wait.settled();
      await reader.close();
    }
  }

  /** The next batch, its partitions, one durable append, and only then the acknowledgement. */
  async #pump(reader: SourceReader, wait: BatchWait, leading: AbortSignal, isOver: () => boolean): Promise<void> {
    let status = reader.status;
    this.#parts.onReading(status);
    for (;;) {
      leading.throwIfAborted();
      const batch = await wait.next();
      if (batch === undefined) {
        if (isOver()) return;
        await this.#parts.writer.requests.report(reader.status);
        await this.#attendToDeadLetters();
      } else {
        await this.#append(batch, batch, false);
        reader.durable();
        // A checkpoint may be what a discard has waited for.
        if (batch.checkpoint !== undefined && this.#parts.writer.requests.hasDeadLetters) wait.interrupt();
      }
      if (isSame(status, reader.status)) continue;
      status = reader.status;
      this.#parts.onReading(status);
      await this.#parts.writer.requests.report(status);
    }
  }

  async #append(
    messages: DeadLetters,
    at: Pick<SourceBatch, 'progress' | 'checkpoint'>,
    isRetry: boolean,
  ): Promise<Pick<Appended, 'appends' | 'unroutable'>> {
    for (;;) {
      try {
        return await this.#appendOnce(messages, at, isRetry);
      } catch (error) {
        if (!isTailraceError(error, 'PARTITIONS_CHANGED')) throw error;
        this.#parts.logger.info(
          {},
          'the partitions of a topic have changed; what was not appended yet is routed again',
        );
      }
    }
  }

  async #appendOnce(
    messages: DeadLetters,
    at: Pick<SourceBatch, 'progress' | 'checkpoint'>,
    isRetry: boolean,
  ): Promise<Pick<Appended, 'appends' | 'unroutable'>> {
    const { writer, onAppended } = this.#parts;
    const { appends, unroutable } = await this.#route(messages);
    const batch: LogBatch = {
      appends,
      progress: at.progress,
      ...(at.checkpoint !== undefined && { checkpoint: at.checkpoint }),
      ...(unroutable.length > 0 && { unroutable }),
      ...(isRetry && { retried: appends.flatMap(({ ids }) => ids) }),
    };
    const startedAt = Date.now();
    await writer.append(batch);
    onAppended({ appends, unroutable, startedAt, isRetry });
    return { appends, unroutable };
  }

  /** A message whose topic does not exist and may not be created has nowhere to go; the others of its batch go on. */
  async #route(
    messages: DeadLetters,
  ): Promise<{ readonly appends: readonly Append[]; readonly unroutable: readonly UnroutableMessages[] }> {
    const { writer, router } = this.#parts;
    const counts = new Map<string, readonly number[]>();
    const refused = new Map<string, TailraceError>();
    for (const topic of new Set(messages.topics)) {
      try {
        counts.set(topic, await writer.partitionCounts(topic));
      } catch (error) {
        if (!isUnroutable(error)) throw error;
        refused.set(topic, error);
      }
    }
    const { appends, unroutable } = router.route(messages, (topic) => counts.get(topic) ?? []);
    return {
      appends,
      unroutable: [...unroutable].map(([topic, ids]) => ({
        topic,
        ids,
        reason: refused.get(topic)?.code ?? '',
        error: refused.get(topic)?.message ?? '',
      })),
    };
  }

  /** Does what operators asked for: routes dead letters again, in the order of the outbox, and removes others. */
  async #attendToDeadLetters(): Promise<void> {
    const { writer, logger } = this.#parts;
    for (;;) {
      const letters = await writer.requests.deadLettersToRetry();
      if (letters.ids.length === 0) break;
      const { appends, unroutable } = await this.#append(letters, { progress: writer.progress ?? '' }, true);
      const positions = positionsOf(appends);
      if (positions.length > 0)
        logger.info({ positions }, 'dead letters of the relay were routed, as an operator asked');
      const stillDead = positionsOf(unroutable);
      if (stillDead.length > 0)
        logger.warn(
          { positions: stillDead },
          'dead letters of the relay still cannot be routed, though an operator asked',
        );
    }
    for (;;) {
      const positions = await writer.requests.discardDeadLetters();
      if (positions.length === 0) break;
      logger.warn({ positions }, 'dead letters of the relay were discarded, as an operator asked');
    }
  }
}

function isUnroutable(error: unknown): error is TailraceError {
  return isTailraceError(error, 'UNKNOWN_TOPIC') || isTailraceError(error, 'INVALID_TOPIC');
}

function positionsOf(parts: readonly { readonly ids: readonly number[] }[]): number[] {
  return parts.flatMap(({ ids }) => ids).sort((a, b) => a - b);
}

function isSame(one: SourceStatus, other: SourceStatus): boolean {
  return one.mode === other.mode && one.reason === other.reason;
}
