import type { CommandMessage, DocumentMessage, EventMessage, Headers, Message } from '../message/message.ts';
import { type TransactionExecutor, type TransactionHandle, transactionExecutor } from '../postgres/executor.ts';
import { loadTracing } from '../telemetry/load-tracing.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import { checkedMessages, listOf, type OneOrMany, type Operation } from './checked-messages.ts';
import { explainFailure } from './failure.ts';
import { insertStatements, type Statement } from './insert.ts';
import {
  assertKnownOptions,
  type MessageSettings,
  messageSettings,
  OUTBOX_OPTIONS,
  type OutboxOptions,
} from './options.ts';

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

interface OutboxSettings extends MessageSettings {
  readonly tracing: Tracing | undefined;
}

function readOptions(options: OutboxOptions): OutboxSettings {
  assertKnownOptions('createOutbox', options, OUTBOX_OPTIONS);
  return { ...messageSettings(options), tracing: loadTracing() };
}

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
  const checked = checkedMessages(operation, messages, maxMessageBytes, trace);
  return insertStatements(quotedSchema, checked, strictKeyOrder);
}

async function run(executor: TransactionExecutor, text: string, values: unknown[], schema: string): Promise<void> {
  try {
    await executor.query(text, values);
  } catch (error) {
    throw explainFailure(error, schema);
  }
}
