import { TailraceError } from '../base/errors.ts';
import { DEFAULT_MAX_MESSAGE_BYTES, encodeMessage } from '../message/encode.ts';
import type {
  CommandMessage,
  DocumentMessage,
  EventMessage,
  Headers,
  Message,
  MessageKind,
} from '../message/message.ts';
import { type TransactionExecutor, type TransactionHandle, transactionExecutor } from '../postgres/executor.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import { loadTracing } from '../telemetry/load-tracing.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import { explainFailure } from './failure.ts';
import { insertStatements, type Statement } from './insert.ts';

/** Options of {@link createOutbox}. */
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

/** One message, or several in order. */
export type OneOrMany<M> = M | readonly M[];

/**
 * Writes messages in the caller's transaction: they become known when it commits, and never if it does not. It holds no
 * connection and no state, so one for the whole process is enough.
 */
export interface Outbox {
  /**
   * Adds events, in the given order, in one round trip (more beyond 32 MB); no events, no round trip. All of them are
   * checked before anything is written, so that an error of ours leaves the transaction as it was. Resolves with what was
   * given.
   *
   * @throws TailraceError `NOT_IN_TRANSACTION`, `TRANSACTION_ABORTED`, `UNKNOWN_TRANSACTION_HANDLE`; `WRONG_KIND` for a
   * command or document; what a broken message throws (`INVALID_PAYLOAD`, `MESSAGE_TOO_LARGE`, …); `NOT_MIGRATED`,
   * `OUTBOX_PARTITION_MISSING`. Other errors of Postgres come through as they are.
   */
  publish<Events extends OneOrMany<EventMessage>>(tx: TransactionHandle, events: Events): Promise<Events>;
  /** Adds commands and documents: what has one receiver. Otherwise as {@link Outbox.publish}. */
  send<Messages extends OneOrMany<CommandMessage | DocumentMessage>>(
    tx: TransactionHandle,
    messages: Messages,
  ): Promise<Messages>;
}

/**
 * Makes an outbox.
 *
 * @throws TailraceError `INVALID_SCHEMA_NAME`, `INVALID_OPTION`.
 */
export function createOutbox(options: OutboxOptions = {}): Outbox {
  const settings = readOptions(options);
  return {
    publish: async (tx, events) => {
      await add(settings, tx, 'publish', events);
      return events;
    },
    send: async (tx, messages) => {
      await add(settings, tx, 'send', messages);
      return messages;
    },
  };
}

interface OutboxSettings {
  readonly schema: string;
  readonly quotedSchema: string;
  readonly maxMessageBytes: number;
  readonly strictKeyOrder: boolean;
  readonly tracing: Tracing | undefined;
}

const OPTION_NAMES = ['schema', 'maxMessageBytes', 'strictKeyOrder'];
const LARGEST_MAX_MESSAGE_BYTES = 100_000_000;

function readOptions(options: OutboxOptions): OutboxSettings {
  const { schema = DEFAULT_SCHEMA, maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES, strictKeyOrder = false } = options;
  const unknown = Object.keys(options).find((name) => !OPTION_NAMES.includes(name));
  if (unknown !== undefined) {
    throw invalidOption(`createOutbox has no option ${unknown}. Expected ${OPTION_NAMES.join(', ')}.`);
  }
  if (!Number.isSafeInteger(maxMessageBytes) || maxMessageBytes < 1 || maxMessageBytes > LARGEST_MAX_MESSAGE_BYTES) {
    throw invalidOption(
      `The option maxMessageBytes is ${String(maxMessageBytes)}. Expected an integer from 1 to ${String(LARGEST_MAX_MESSAGE_BYTES)}.`,
    );
  }
  if (typeof strictKeyOrder !== 'boolean') {
    throw invalidOption(`The option strictKeyOrder is ${String(strictKeyOrder)}. Expected true or false.`);
  }
  return { schema, quotedSchema: quoteSchema(schema), maxMessageBytes, strictKeyOrder, tracing: loadTracing() };
}

function invalidOption(message: string): TailraceError {
  return new TailraceError('INVALID_OPTION', message);
}

type Operation = 'publish' | 'send';

async function add(
  settings: OutboxSettings,
  tx: TransactionHandle,
  operation: Operation,
  given: OneOrMany<Message>,
): Promise<void> {
  const executor = transactionExecutor(tx);
  const messages = listOf(given);
  const { tracing } = settings;
  if (tracing?.isOn === true && messages.length > 0) {
    await tracing.publish(operation, messages, (trace) => write(settings, executor, operation, messages, trace));
  } else await write(settings, executor, operation, messages);
}

async function write(
  settings: OutboxSettings,
  executor: TransactionExecutor,
  operation: Operation,
  messages: readonly Message[],
  trace?: Headers,
): Promise<void> {
  for (const { text, values } of statements(settings, operation, messages, trace)) {
    await run(executor, text, values, settings.schema);
  }
}

/** Checks all messages before the first is written. */
function statements(
  { quotedSchema, maxMessageBytes, strictKeyOrder }: OutboxSettings,
  operation: Operation,
  messages: readonly Message[],
  trace: Headers | undefined,
): Statement[] {
  const assertKind = operation === 'publish' ? assertPublishable : assertSendable;
  const encoded = messages.map((message) => {
    const checked = encodeMessage(message, maxMessageBytes, trace);
    assertKind(message);
    return checked;
  });
  return insertStatements(quotedSchema, encoded, strictKeyOrder);
}

function listOf(given: OneOrMany<Message>): readonly Message[] {
  return Array.isArray(given) ? (given as readonly Message[]) : [given as Message];
}

async function run(executor: TransactionExecutor, text: string, values: unknown[], schema: string): Promise<void> {
  try {
    await executor.query(text, values);
  } catch (error) {
    throw explainFailure(error, schema);
  }
}

function assertPublishable({ kind, type }: Message): void {
  if (kind === 'event') return;
  throw wrongKind(
    `publish was given the ${kind} ${type}. To publish is to tell whoever listens, be it nobody or many, and a ${kind} is meant for one receiver. Use outbox.send(tx, …), or defineEvent if it says what has happened.`,
    { type, kind },
  );
}

function assertSendable({ kind, type }: Message): void {
  if (kind !== 'event') return;
  throw wrongKind(
    `send was given the event ${type}. To send is to address one receiver, and an event states what has happened for whoever cares. Use outbox.publish(tx, …), or defineCommand if somebody is to do something.`,
    { type, kind },
  );
}

function wrongKind(message: string, details: { type: string; kind: MessageKind }): TailraceError {
  return new TailraceError('WRONG_KIND', message, { details });
}
