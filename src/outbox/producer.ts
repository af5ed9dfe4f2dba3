import { messageOf, TailraceError } from '../base/errors.ts';
import { Signal } from '../base/signal.ts';
import { uuidV7 } from '../base/uuid.ts';
import type { EncodedMessage } from '../message/encode.ts';
import type { CommandMessage, DocumentMessage, EventMessage, Headers, Message } from '../message/message.ts';
import { loadTracing } from '../telemetry/load-tracing.ts';
import { nextBatch, type WaitingCall } from './batching.ts';
import { checkedMessages, listOf, type OneOrMany, type Operation } from './checked-messages.ts';
import { insertBatchStatement } from './insert.ts';
import { insertOnce } from './insert-once.ts';
import { type ProducerOptions, producerSettings, type ProducerSettings } from './options.ts';

/**
 * Adds messages to the outbox in transactions of its own, many in one commit. For messages that belong to no business change:
 * what is stored with a change goes through an `Outbox`, in its transaction.
 *
 * The messages of one call are committed together, and calls in the order in which they were made. Do not change the bytes of
 * a payload before the call has resolved.
 */
export interface Producer extends AsyncDisposable {
  /**
   * Adds events; resolves with them once they are committed, durably. Added once, though the connection is lost on the way.
   * No events, no round trip. If it throws, nothing of the call is stored, but for `UNKNOWN_RESULT`.
   *
   * @throws TailraceError `BUFFER_FULL`, which can be tried again once earlier calls have resolved; `UNKNOWN_RESULT`: the
   * connection was lost and did not come back in time; `STOPPED`; `WRONG_KIND` for a command or document; what a broken message
   * throws (`INVALID_PAYLOAD`, `MESSAGE_TOO_LARGE`, …); `NOT_MIGRATED`, `OUTBOX_PARTITION_MISSING`, `TIMEOUT`. Other errors of
   * Postgres come through as they are. Calls that share a batch share its failure.
   */
  publish<Events extends OneOrMany<EventMessage>>(events: Events): Promise<Events>;
  /** Adds commands and documents: what has one receiver. Otherwise as {@link Producer.publish}. */
  send<Messages extends OneOrMany<CommandMessage | DocumentMessage>>(messages: Messages): Promise<Messages>;
  /** Lets nothing wait for others; resolves once all earlier calls have ended, well or not. Never rejects. */
  flush(): Promise<void>;
  /** Takes no more messages, and resolves once all earlier calls have ended, well or not. May be called more than once. */
  stop(): Promise<void>;
}

/**
 * Makes a producer. It connects with its first message, and has one batch under way at a time.
 *
 * @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`.
 */
export function createProducer(options: ProducerOptions): Producer {
  return new OutboxProducer(producerSettings(options));
}

/** A call whose messages are not committed yet. */
interface Call extends WaitingCall {
  readonly messages: readonly EncodedMessage[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

class OutboxProducer implements Producer {
  readonly #id = uuidV7();
  readonly #settings: ProducerSettings;
  readonly #tracing = loadTracing();
  readonly #changed = new Signal();
  /** Calls that have not ended. */
  readonly #open = new Set<Promise<void>>();
  #waiting: Call[] = [];
  #bufferedBytes = 0;
  #batches = 0;
  #flushes = 0;
  #isRunning = false;
  #isStopped = false;
  readonly #onIdleClientLost = (error: Error): void => {
    this.#settings.logger.debug({ error: messageOf(error) }, 'an idle connection of the pool was lost');
  };

  constructor(settings: ProducerSettings) {
    this.#settings = settings;
    settings.database.on?.('error', this.#onIdleClientLost);
  }

  async publish<Events extends OneOrMany<EventMessage>>(events: Events): Promise<Events> {
    await this.#produce('publish', events);
    return events;
  }

  async send<Messages extends OneOrMany<CommandMessage | DocumentMessage>>(messages: Messages): Promise<Messages> {
    await this.#produce('send', messages);
    return messages;
  }

  async flush(): Promise<void> {
    this.#flushes += 1;
    this.#changed.notify();
    await Promise.allSettled(this.#open);
    this.#flushes -= 1;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.flush();
    this.#settings.database.removeListener?.('error', this.#onIdleClientLost);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #produce(operation: Operation, given: OneOrMany<Message>): Promise<void> {
    if (this.#isStopped) throw stopped();
    const messages = listOf(given);
    if (messages.length === 0) return Promise.resolve();
    if (this.#tracing?.isOn !== true) return this.#add(operation, messages);
    return this.#tracing.publish(operation, messages, (trace) => this.#add(operation, messages, trace));
  }

  #add(operation: Operation, given: readonly Message[], trace?: Headers): Promise<void> {
    const messages = checkedMessages(operation, given, this.#settings.maxMessageBytes, trace);
    const bytes = messages.reduce((sum, message) => sum + message.bytes, 0);
    this.#assertRoom(bytes);
    this.#bufferedBytes += bytes;
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const call: Call = {
      ...{ messages, count: messages.length, bytes, sinceMs: performance.now() },
      ...{ resolve: () => resolve(undefined), reject },
    };
    this.#waiting.push(call);
    const ended = promise.finally(() => {
      this.#bufferedBytes -= bytes;
      this.#open.delete(ended);
    });
    this.#open.add(ended);
    this.#changed.notify();
    if (!this.#isRunning) void this.#run();
    return ended;
  }

  #assertRoom(bytes: number): void {
    const { maxBufferedBytes } = this.#settings;
    if (bytes > maxBufferedBytes) throw tooLarge(bytes, maxBufferedBytes);
    if (this.#bufferedBytes + bytes > maxBufferedBytes) throw bufferFull(this.#bufferedBytes, maxBufferedBytes);
  }

  /** Commits one batch after the other, until nothing waits: so keys keep their order. */
  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waiting.length > 0) {
      const isUrgent = this.#flushes > 0;
      const next = nextBatch(this.#waiting, this.#settings.limits, { nowMs: performance.now(), isUrgent });
      if ('waitMs' in next) await this.#changed.wait(next.waitMs);
      else await this.#commit(this.#waiting.splice(0, next.calls));
    }
    this.#isRunning = false;
  }

  async #commit(calls: readonly Call[]): Promise<void> {
    this.#batches += 1;
    const { quotedSchema, strictKeyOrder } = this.#settings;
    try {
      const messages = calls.flatMap((call) => call.messages);
      const batch = { producer: this.#id, number: this.#batches };
      await insertOnce(this.#settings, insertBatchStatement(quotedSchema, messages, batch, strictKeyOrder));
      for (const { resolve } of calls) resolve();
    } catch (error) {
      for (const { reject } of calls) reject(error);
    }
  }
}

function stopped(): TailraceError {
  return new TailraceError('STOPPED', 'The producer was stopped, and takes no more messages. Make another.');
}

function bufferFull(held: number, allowed: number): TailraceError {
  return new TailraceError(
    'BUFFER_FULL',
    `The producer holds ${String(held)} bytes of messages that are not committed yet; at most ${String(allowed)} are allowed. Await earlier calls, or flush(), and repeat; or raise maxBufferedBytes.`,
    { retryable: true, details: { held, allowed } },
  );
}

function tooLarge(found: number, allowed: number): TailraceError {
  return new TailraceError(
    'MESSAGE_TOO_LARGE',
    `The messages of one call have ${String(found)} bytes together; at most ${String(allowed)} are allowed. Make several calls, or raise maxBufferedBytes.`,
    { details: { found, allowed } },
  );
}
