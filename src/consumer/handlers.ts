import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import type { Definition, PayloadOf } from '../message/definition.ts';
import type { Message } from '../message/message.ts';
import { shown, unknownName } from './option-checks.ts';
import type { ReleaseOptions } from './verdict.ts';

/** Where a record stands in its log. */
export interface RecordPlace {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
}

/** What a handler works with, whatever the delivery. */
export interface DeliveryContext {
  /** Where the message stands in the log; for a batch, where its first message stands. */
  readonly record: RecordPlace;
  /** 1 at first, more after failures of the handler. */
  readonly attempt: number;
  /**
   * Whether the group has handled the message before, and a seek made it come again; for a batch, whether that holds for any
   * of its messages.
   */
  readonly isReplay: boolean;
  /** Fires when the transaction will not be committed any more, or is wanted to end. */
  readonly signal: AbortSignal;
  /**
   * Sets the message aside as a dead letter at once, with this reason, whatever attempts there are left. Ends the handler by
   * throwing; what was done in its transaction is undone. Of a batch, each message is then handled by itself.
   */
  readonly reject: (reason: string) => never;
  /**
   * Gives the message back without using up an attempt: it is handled again, at once or after a wait. Ends the handler by
   * throwing; what was done in its transaction is undone. With `at-most-once` it is a dead letter.
   */
  readonly release: (options?: ReleaseOptions) => never;
}

/** What a handler works with that has a transaction. */
export interface HandlerContext extends DeliveryContext {
  /**
   * A client inside the transaction that also holds the row "this message is handled". What is written through it commits
   * with that row, or not at all. The consumer commits: statements that would end the transaction are refused with
   * `NOT_IN_TRANSACTION` (savepoints are the handler's to use), and so are queries after the handler has returned.
   */
  readonly tx: pg.PoolClient;
}

/** Handles one message. What it throws undoes the transaction and is retried. */
export type Handler<Payload, Context = HandlerContext> = (event: Message<Payload>, context: Context) => unknown;

/** Handles messages that stand one behind the other in a partition, in one transaction. Otherwise as {@link Handler}. */
export type BatchHandler<Payload, Context = HandlerContext> = (
  events: readonly Message<Payload>[],
  context: Context,
) => unknown;

/** How a handler's messages are treated. */
export interface HandlerOptions {
  /**
   * What a message whose attempts are used up does to its key: `loose`, it is stepped over; `strict`, later messages of the
   * key line up behind it until an operator retries or discards it. @defaultValue that of the consumer
   */
  readonly deadLetters?: DeadLetterMode;
  /**
   * What to do with messages that come again because of a seek: handle them again, or step over those that the group has
   * handled before, as where the handler does something outside the database that must not be repeated.
   * @defaultValue 'handle'
   */
  readonly onReplay?: 'handle' | 'skip';
}

/** What a dead letter does to its key. */
export type DeadLetterMode = 'strict' | 'loose';

/** How many messages a batch handler gets at once. */
export interface BatchOptions extends HandlerOptions {
  /** At most this many. @defaultValue 500, or what the preset says */
  readonly maxRecords?: number;
  /**
   * `'lazy'`: a row says of each message that it is handled, and the group's place is stored now and then.
   * `'in-transaction'`: the group's place moves in the handler's transaction, and says that all below it are handled: one row
   * for a batch. A message that stands in the log twice is then handled twice. Only where handlers have a transaction.
   * @defaultValue 'lazy'
   */
  readonly cursor?: 'lazy' | 'in-transaction';
}

/** A handler as it is kept: single handlers get batches of one. */
export interface RegisteredHandler {
  readonly isBatch: boolean;
  readonly maxRecords: number;
  readonly deadLetters: DeadLetterMode | undefined;
  readonly onReplay: 'handle' | 'skip';
  readonly movesCursor: boolean;
  /** To be given a `HandlerContext`, unless the delivery is one without transactions. */
  handle(events: readonly Message[], context: DeliveryContext): unknown;
}

/** Which handler gets which messages. */
export class HandlerRegistry {
  readonly #handlers = new Map<string, Map<string, RegisteredHandler>>();
  readonly #batchTopics = new Set<string>();
  readonly #batchRecords: number;

  /** `batchRecords`: the largest batch of a handler that does not say. */
  constructor(batchRecords: number) {
    this.#batchRecords = batchRecords;
  }

  /** @throws TailraceError `DUPLICATE_HANDLER`: the type of this topic has a handler; `INVALID_OPTION`. */
  addSingle<D extends Definition>(definition: D, options: HandlerOptions, handler: Handler<PayloadOf<D>, never>): void {
    assertUsable('on', definition, handler);
    assertOptions(definition, options, ['deadLetters', 'onReplay']);
    this.#add(definition, {
      isBatch: false,
      maxRecords: 1,
      deadLetters: deadLettersOf(definition, options),
      onReplay: onReplayOf(definition, options),
      movesCursor: false,
      handle: (events, context) => handler(events[0] as Message<PayloadOf<D>>, context as never),
    });
  }

  /** @throws TailraceError `DUPLICATE_HANDLER`, `INVALID_OPTION`. */
  addBatch<D extends Definition>(
    definition: D,
    options: BatchOptions,
    handler: BatchHandler<PayloadOf<D>, never> | undefined,
  ): void {
    assertUsable('onBatch', definition, handler);
    assertOptions(definition, options, ['maxRecords', 'cursor', 'deadLetters', 'onReplay']);
    const { maxRecords = this.#batchRecords } = options;
    if (!Number.isInteger(maxRecords) || maxRecords < 1) {
      throw new TailraceError(
        'INVALID_OPTION',
        `The option maxRecords of the batch handler of ${definition.type} is ${String(maxRecords)}. Expected a whole number of 1 or more.`,
      );
    }
    this.#add(definition, {
      isBatch: true,
      maxRecords,
      deadLetters: deadLettersOf(definition, options),
      onReplay: onReplayOf(definition, options),
      movesCursor: cursorOf(definition, options) === 'in-transaction',
      handle: (events, context) => handler(events as readonly Message<PayloadOf<D>>[], context as never),
    });
    this.#batchTopics.add(definition.topic);
  }

  /** The handler of a type in a topic. */
  find(topic: string, type: string): RegisteredHandler | undefined {
    return this.#handlers.get(topic)?.get(type);
  }

  /** Whether records of a topic are handled one after another, whatever their keys. */
  isSerial(topic: string): boolean {
    return this.#batchTopics.has(topic);
  }

  /** Whether a handler moves the group's place in its transaction. */
  get movesCursor(): boolean {
    return [...this.#handlers.values()].some((ofTopic) => [...ofTopic.values()].some((one) => one.movesCursor));
  }

  /** Whether a handler says that its dead letters hold their keys up. */
  get hasStrict(): boolean {
    return [...this.#handlers.values()].some((ofTopic) =>
      [...ofTopic.values()].some((one) => one.deadLetters === 'strict'),
    );
  }

  /** The topics that have handlers, sorted. */
  get topics(): string[] {
    return [...this.#handlers.keys()].sort();
  }

  #add({ topic, type }: Definition, handler: RegisteredHandler): void {
    const ofTopic = this.#handlers.get(topic) ?? new Map<string, RegisteredHandler>();
    if (ofTopic.has(type)) {
      throw new TailraceError(
        'DUPLICATE_HANDLER',
        `${type} of topic ${topic} has a handler already. A group handles a message once: do both things in one handler, or use two groups.`,
        { details: { topic, type } },
      );
    }
    ofTopic.set(type, handler);
    this.#handlers.set(topic, ofTopic);
  }
}

/** How the methods are called, for who has mixed the arguments up. */
const CALLS = {
  on: 'on(definition, handler, options)',
  onBatch: 'onBatch(definition, options, handler)',
};

function assertUsable<Callable>(
  method: keyof typeof CALLS,
  definition: Definition,
  handler: Callable | undefined,
): asserts handler is Callable {
  const { topic, type } = (definition as Partial<Definition> | null | undefined) ?? {};
  if (typeof topic !== 'string' || typeof type !== 'string') {
    throw new TailraceError(
      'INVALID_OPTION',
      `${method} was called without a definition that has a topic and a type. Expected what defineEvent, defineCommand or defineDocument returned.`,
    );
  }
  if (typeof handler === 'function') return;
  throw new TailraceError(
    'INVALID_OPTION',
    `The handler of ${type} is ${handler === undefined ? 'missing' : typeof handler}. Expected a function: ${CALLS[method]}.`,
  );
}

function assertOptions({ type }: Definition, options: unknown, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null) {
    throw new TailraceError(
      'INVALID_OPTION',
      `The options of the handler of ${type} are ${shown(options)}. Expected an object, or none.`,
    );
  }
  const unknown = unknownName(options, known);
  if (unknown === undefined) return;
  throw new TailraceError(
    'INVALID_OPTION',
    `The handler of ${type} has no option ${unknown}. Expected ${known.join(', ')}.`,
  );
}

function cursorOf({ type }: Definition, { cursor = 'lazy' }: BatchOptions): 'lazy' | 'in-transaction' {
  if (['lazy', 'in-transaction'].includes(cursor)) return cursor;
  throw new TailraceError(
    'INVALID_OPTION',
    `The option cursor of the handler of ${type} is ${shown(cursor)}. Expected lazy or in-transaction.`,
  );
}

function deadLettersOf({ type }: Definition, { deadLetters }: HandlerOptions): DeadLetterMode | undefined {
  if (deadLetters === undefined || ['strict', 'loose'].includes(deadLetters)) return deadLetters;
  throw new TailraceError(
    'INVALID_OPTION',
    `The option deadLetters of the handler of ${type} is ${JSON.stringify(deadLetters)}. Expected strict or loose.`,
  );
}

function onReplayOf({ type }: Definition, { onReplay = 'handle' }: HandlerOptions): 'handle' | 'skip' {
  if (['handle', 'skip'].includes(onReplay)) return onReplay;
  throw new TailraceError(
    'INVALID_OPTION',
    `The option onReplay of the handler of ${type} is ${JSON.stringify(onReplay)}. Expected handle or skip.`,
  );
}
