import type { StandardSchemaV1 } from '@standard-schema/spec';
import { TailraceError } from '../base/errors.ts';
import { uuidV7 } from '../base/uuid.ts';
import { assertId, assertKey, assertOccurredAt, assertTiming, assertTopic, assertType, describe } from './fields.ts';
import { SCHEMA_VERSION_HEADER, copyHeaders } from './headers.ts';
import type { CommandMessage, DocumentMessage, EventMessage, Headers, Message, MessageKind } from './message.ts';
import { conform } from './schema.ts';

/** What a type of message has in common. */
export interface DefinitionOptions<Input, Output = Input> {
  /** Where messages of this type go: 1 to 200 letters, digits, dots, underscores and hyphens. */
  readonly topic: string;
  /**
   * The key of a message, from its payload as the schema left it. Messages of one key keep their order; `null` promises no
   * order. A key that is undefined is refused, since it is more often a misspelt field than a decision.
   *
   * @defaultValue no key
   */
  readonly key?: (payload: Output) => string | null;
  /**
   * Any Standard Schema (zod, valibot, arktype, …) that answers at once. It is applied when a message is made: what it puts
   * out is what is stored. Consumers do not apply it again.
   *
   * @defaultValue payloads are not checked, beyond what JSON can carry
   */
  readonly schema?: StandardSchemaV1<Input, Output>;
  /** The version of the payload's shape, 1 or more. It travels in the header `schema-version`. @defaultValue no header */
  readonly version?: number;
}

/** What one message has of its own. */
export interface MessageOptions {
  /** A UUID. @defaultValue a new UUIDv7 */
  readonly id?: string;
  /** @defaultValue none. A `schema-version` gives way to that of the definition. */
  readonly headers?: Headers;
  /** @defaultValue now */
  readonly occurredAt?: Date;
  /** From then on no handler begins it: it goes to the dead letters of each group. @defaultValue never */
  readonly expiresAt?: Date;
  /**
   * No handler gets it before then, by the clock of the handlers' database. It leaves the order of its key and holds no
   * other message up. @defaultValue at once
   */
  readonly deliverAt?: Date;
  /** The same, in milliseconds from when it is written to the outbox, by the database's clock. Not with `deliverAt`. */
  readonly delayMs?: number;
}

interface DefinitionFacts<Kind extends MessageKind> {
  readonly kind: Kind;
  readonly type: string;
  readonly topic: string;
  readonly schema: StandardSchemaV1 | undefined;
  readonly version: number | undefined;
}

/** Makes events of one type. See {@link defineEvent}. */
export interface EventDefinition<Input, Output = Input> extends DefinitionFacts<'event'> {
  /** Makes a frozen message. Throws as {@link defineEvent} says. */
  (payload: Input, options?: MessageOptions): EventMessage<Output>;
}

/** Makes commands of one type. See {@link defineCommand}. */
export interface CommandDefinition<Input, Output = Input> extends DefinitionFacts<'command'> {
  /** Makes a frozen message. Throws as {@link defineEvent} says. */
  (payload: Input, options?: MessageOptions): CommandMessage<Output>;
}

/** Makes documents of one type. See {@link defineDocument}. */
export interface DocumentDefinition<Input, Output = Input> extends DefinitionFacts<'document'> {
  /** Makes a frozen message. Throws as {@link defineEvent} says. */
  (payload: Input, options?: MessageOptions): DocumentMessage<Output>;
}

/** Any definition: what a consumer's `on` takes. */
export type Definition<Output = unknown> =
  EventDefinition<never, Output> | CommandDefinition<never, Output> | DocumentDefinition<never, Output>;

/**
 * What a value is once it has been written as JSON and read again: a `Date` is a string, what has `toJSON` is what that
 * returns. Bytes are bytes still.
 */
export type Received<Value> = unknown extends Value
  ? Value
  : Value extends Uint8Array
    ? Uint8Array
    : ReceivedJson<Value>;

type ReceivedJson<Value> = unknown extends Value
  ? Value
  : Value extends string | number | boolean | null | undefined
    ? Value
    : Value extends { toJSON(key: string): infer Written }
      ? ReceivedJson<Written>
      : Value extends object
        ? { [Name in keyof Value]: ReceivedJson<Value[Name]> }
        : never;

/** The payload that handlers of a definition get. */
export type PayloadOf<D extends Definition> = D extends Definition<infer Output> ? Received<Output> : never;

/**
 * Defines an event: something that happened, named in the past tense, which names no receiver. The definition is called to
 * make a message: `OrderPlaced({ orderId, total })`.
 *
 * With a schema the types come from it; without one, name the payload's type: `defineEvent<Order>('OrderPlaced', …)`.
 * Making a message throws `SCHEMA_VIOLATION`, `INVALID_KEY`, `INVALID_HEADER`, `INVALID_MESSAGE` (id, occurredAt), and
 * `INVALID_OPTION` for an unknown option, and where the schema turns out to be asynchronous.
 *
 * @throws TailraceError `INVALID_TYPE`, `INVALID_TOPIC`, `INVALID_OPTION`.
 */
export function defineEvent<Input = unknown, Output = Input>(
  type: string,
  options: DefinitionOptions<Input, Output>,
): EventDefinition<Input, Output> {
  return define('event', type, options);
}

/** Defines a command: an order to one receiver, named in the imperative. Otherwise as {@link defineEvent}. */
export function defineCommand<Input = unknown, Output = Input>(
  type: string,
  options: DefinitionOptions<Input, Output>,
): CommandDefinition<Input, Output> {
  return define('command', type, options);
}

/** Defines a document: data for one receiver, such as a reply. Otherwise as {@link defineEvent}. */
export function defineDocument<Input = unknown, Output = Input>(
  type: string,
  options: DefinitionOptions<Input, Output>,
): DocumentDefinition<Input, Output> {
  return define('document', type, options);
}

type MessageOf<Kind extends MessageKind, Payload> = Message<Payload> & { readonly kind: Kind };
type Maker<Kind extends MessageKind, Input, Output> = DefinitionFacts<Kind> &
  ((payload: Input, options?: MessageOptions) => MessageOf<Kind, Output>);

function define<Kind extends MessageKind, Input, Output>(
  kind: Kind,
  type: string,
  options: DefinitionOptions<Input, Output>,
): Maker<Kind, Input, Output> {
  assertOptions(type, options);
  const { topic, key, schema, version } = options;
  const headers = version === undefined ? undefined : { [SCHEMA_VERSION_HEADER]: String(version) };
  const make = (input: Input, own: MessageOptions = {}): MessageOf<Kind, Output> => {
    assertMessageOptions(type, own);
    // Without a schema nothing tells Input and Output apart.
    const payload = schema === undefined ? (input as unknown as Output) : conform(type, schema, input);
    return Object.freeze({
      id: idOf(type, own),
      kind,
      type,
      topic,
      key: keyOf(type, key, payload),
      headers: copyHeaders(type, own.headers, headers),
      payload,
      occurredAt: occurredAtOf(type, own),
      ...timingOf(type, own),
    });
  };
  Object.defineProperty(make, 'name', { value: type });
  return Object.freeze(Object.assign(make, { kind, type, topic, schema, version }));
}

function idOf(type: string, { id }: MessageOptions): string {
  if (id === undefined) return uuidV7();
  assertId(id, type);
  return id.toLowerCase(); // as Postgres gives it back
}

function keyOf<Payload>(type: string, key: ((payload: Payload) => string | null) | undefined, payload: Payload) {
  if (key === undefined) return null;
  const found: unknown = key(payload);
  assertKey(found, type);
  return found;
}

function occurredAtOf(type: string, { occurredAt }: MessageOptions): Date {
  if (occurredAt === undefined) return new Date();
  assertOccurredAt(occurredAt, type);
  return occurredAt;
}

function timingOf(
  type: string,
  { expiresAt, deliverAt, delayMs }: MessageOptions,
): Pick<Message, 'expiresAt' | 'deliverAt' | 'delayMs'> {
  assertTiming({ expiresAt, deliverAt, delayMs }, type);
  return {
    ...(expiresAt !== undefined && { expiresAt }),
    ...(deliverAt !== undefined && { deliverAt }),
    ...(delayMs !== undefined && { delayMs }),
  };
}

const OPTION_NAMES = ['topic', 'key', 'schema', 'version'];

function assertOptions(type: unknown, options: unknown): void {
  assertType(type);
  if (typeof options !== 'object' || options === null) {
    throw invalidOption(`The options of ${type} are ${describe(options)}. Expected { topic: … }.`);
  }
  const { topic, key, schema, version } = options as Record<string, unknown>;
  assertTopic(topic, type);
  const unknown = Object.keys(options).find((name) => !OPTION_NAMES.includes(name));
  if (unknown !== undefined) {
    throw invalidOption(`${type} has an unknown option ${unknown}. Expected ${OPTION_NAMES.join(', ')}.`);
  }
  if (key !== undefined && typeof key !== 'function') {
    throw invalidOption(`The option key of ${type} is ${describe(key)}. Expected a function of the payload.`);
  }
  if (schema !== undefined && !isStandardSchema(schema)) {
    throw invalidOption(
      `The option schema of ${type} is ${describe(schema)}. Expected a Standard Schema, such as z.object({ … }).`,
    );
  }
  if (version !== undefined && !isVersion(version)) {
    const found = typeof version === 'number' ? String(version) : describe(version);
    throw invalidOption(`The option version of ${type} is ${found}. Expected an integer of 1 or more.`);
  }
}

const MESSAGE_OPTION_NAMES: ReadonlySet<string> = new Set(
  Object.keys({
    id: true,
    headers: true,
    occurredAt: true,
    expiresAt: true,
    deliverAt: true,
    delayMs: true,
  } satisfies Record<keyof MessageOptions, true>),
);

/** A name that was misspelt would have the message delivered at once, say, in place of later. */
function assertMessageOptions(type: string, own: unknown): void {
  if (typeof own !== 'object' || own === null) {
    throw invalidOption(`The options of a message ${type} are ${describe(own)}. Expected an object, or none.`);
  }
  for (const name in own) {
    if (MESSAGE_OPTION_NAMES.has(name)) continue;
    const known = [...MESSAGE_OPTION_NAMES].join(', ');
    throw invalidOption(`A message ${type} has an unknown option ${name}. Expected ${known}.`);
  }
}

function isStandardSchema(schema: unknown): boolean {
  // arktype's schemas are functions
  const isHolder = (typeof schema === 'object' && schema !== null) || typeof schema === 'function';
  return isHolder && typeof (schema as Partial<StandardSchemaV1>)['~standard']?.validate === 'function';
}

function isVersion(version: unknown): boolean {
  return Number.isSafeInteger(version) && (version as number) >= 1;
}

function invalidOption(message: string): TailraceError {
  return new TailraceError('INVALID_OPTION', message);
}
