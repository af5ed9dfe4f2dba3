import { TailraceError } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/logger.ts';
import { DEFAULT_MAX_MESSAGE_BYTES } from '../message/encode.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import type { BatchLimits } from './batching.ts';
import type { ProducerDatabase } from './insert-once.ts';

/** Options of `createOutbox`. */
export interface OutboxOptions {
  /** The schema that `tailrace migrate` filled. @defaultValue 'tailrace' */
  readonly schema?: string;
  /**
   * The largest message, in bytes of topic, key, type, headers and payload together; at most 100,000,000. Raise it only if
   * every broker that messages are forwarded to takes such large ones.
   *
   * @defaultValue 1_000_000
   */
  readonly maxMessageBytes?: number;
  /**
   * Makes the messages of a key follow the order of their commits in polling mode too, where writers do not lock what the
   * key stands for. Whoever publishes for a key then waits until a transaction that did so before has ended, and holds a lock
   * of Postgres for each key until its own end. Everyone who publishes for the key has to do it. @defaultValue false
   */
  readonly strictKeyOrder?: boolean;
}

/** Options of `createProducer`. */
export interface ProducerOptions extends OutboxOptions {
  /** A `pg.Pool` on the outbox's database, or whatever hands out clients as it does. One client is used, while there is work. */
  readonly database: ProducerDatabase;
  /**
   * How long messages wait for others to share their commit, in milliseconds: raise it for more messages in a commit, set 0 to wait
   * for nothing. While a commit is under way, messages gather in any case. @defaultValue 5
   */
  readonly lingerMs?: number;
  /** A batch with so many messages waits no longer. @defaultValue 1_000 */
  readonly maxBatchMessages?: number;
  /** A batch with so many bytes of messages waits no longer. @defaultValue 1_000_000 */
  readonly maxBatchBytes?: number;
  /**
   * How many bytes of messages are held that are not committed yet; at most 100,000,000. What is too much is refused:
   * `BUFFER_FULL`. @defaultValue 32_000_000
   */
  readonly maxBufferedBytes?: number;
  /**
   * How long a batch is tried while the database cannot be reached, or refuses for a reason that passes, in milliseconds.
   * @defaultValue 60_000
   */
  readonly timeoutMs?: number;
  /** Is told of attempts that failed. @defaultValue says nothing */
  readonly logger?: Logger;
}

/** What messages are checked by, and how they are written. */
export interface MessageSettings {
  readonly schema: string;
  readonly quotedSchema: string;
  readonly maxMessageBytes: number;
  readonly strictKeyOrder: boolean;
}

/** The options of a producer with their defaults. */
export interface ProducerSettings extends MessageSettings {
  readonly database: ProducerDatabase;
  readonly limits: BatchLimits;
  readonly maxBufferedBytes: number;
  readonly timeoutMs: number;
  readonly logger: Logger;
}

export const OUTBOX_OPTIONS = ['schema', 'maxMessageBytes', 'strictKeyOrder'];
const PRODUCER_OPTIONS = [
  ...['database', ...OUTBOX_OPTIONS, 'lingerMs', 'maxBatchMessages', 'maxBatchBytes', 'maxBufferedBytes'],
  ...['timeoutMs', 'logger'],
];
const LARGEST_BYTES = 100_000_000;

/**
 * Fills in the defaults.
 *
 * @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`.
 */
export function producerSettings(options: ProducerOptions): ProducerSettings {
  assertKnownOptions('createProducer', options, PRODUCER_OPTIONS);
  const { database, logger = silentLogger } = options;
  if (typeof (database as Partial<ProducerDatabase> | undefined)?.connect !== 'function') {
    throw invalidOption('The option database has no method connect. Expected a pg.Pool.');
  }
  if (typeof (database as { getTransactionStatus?: unknown }).getTransactionStatus === 'function') {
    throw invalidOption('The option database is a single client. Expected a pg.Pool.');
  }
  return {
    ...messageSettings(options),
    database,
    limits: {
      lingerMs: whole('lingerMs', options.lingerMs ?? 5, 0, LONGEST_MS),
      messages: whole('maxBatchMessages', options.maxBatchMessages ?? 1_000, 1, 100_000),
      bytes: whole('maxBatchBytes', options.maxBatchBytes ?? 1_000_000, 1, LARGEST_BYTES),
    },
    maxBufferedBytes: whole('maxBufferedBytes', options.maxBufferedBytes ?? 32_000_000, 1, LARGEST_BYTES),
    timeoutMs: whole('timeoutMs', options.timeoutMs ?? 60_000, 1, LONGEST_MS),
    logger,
  };
}

const LONGEST_MS = 3_600_000;

/** @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`. */
export function messageSettings(options: OutboxOptions): MessageSettings {
  const { schema = DEFAULT_SCHEMA, strictKeyOrder = false } = options;
  const maxMessageBytes = options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES;
  if (typeof strictKeyOrder !== 'boolean') {
    throw invalidOption(`The option strictKeyOrder is ${String(strictKeyOrder)}. Expected true or false.`);
  }
  return {
    schema,
    quotedSchema: quoteSchema(schema),
    maxMessageBytes: whole('maxMessageBytes', maxMessageBytes, 1, LARGEST_BYTES),
    strictKeyOrder,
  };
}

/** @throws TailraceError `INVALID_OPTION`. */
export function assertKnownOptions(creator: string, options: object, names: readonly string[]): void {
  const unknown = Object.keys(options).find((name) => !names.includes(name));
  if (unknown === undefined) return;
  throw invalidOption(`${creator} has no option ${unknown}. Expected ${names.join(', ')}.`);
}

function whole(name: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw invalidOption(
    `The option ${name} is ${String(value)}. Expected an integer from ${String(least)} to ${String(most)}.`,
  );
}

function invalidOption(message: string): TailraceError {
  return new TailraceError('INVALID_OPTION', message);
}
