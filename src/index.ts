export { TailraceError, isTailraceError } from './base/errors.ts';
export type { ErrorCode, ErrorOptions } from './base/errors.ts';
export type { Service } from './base/lifecycle.ts';
export type { Logger } from './base/logger.ts';
export { uuidV7 } from './base/uuid.ts';
export { defineCommand, defineDocument, defineEvent } from './message/definition.ts';
export type {
  CommandDefinition,
  Definition,
  DefinitionOptions,
  DocumentDefinition,
  EventDefinition,
  MessageOptions,
  PayloadOf,
  Received,
} from './message/definition.ts';
export { decodePayload } from './message/decode.ts';
export type { StoredPayload } from './message/decode.ts';
export type {
  CommandMessage,
  DocumentMessage,
  EventMessage,
  Headers,
  Message,
  MessageKind,
} from './message/message.ts';
export { createOutbox } from './outbox/outbox.ts';
export type { Outbox } from './outbox/outbox.ts';
export type { OneOrMany } from './outbox/checked-messages.ts';
export type { OutboxOptions, ProducerOptions } from './outbox/options.ts';
export type { ProducerDatabase } from './outbox/insert-once.ts';
export { createProducer } from './outbox/producer.ts';
export type { Producer } from './outbox/producer.ts';
export type { KyselyRawQuery, KyselyTransaction, PgTransactionClient, TransactionHandle } from './postgres/executor.ts';
export { migrate } from './postgres/migrations.ts';
export type { MigrateOptions, Migration } from './postgres/migrations.ts';
