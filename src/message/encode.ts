import { types } from 'node:util';
import { TailraceError } from '../base/errors.ts';
import {
  assertId,
  assertKey,
  assertKind,
  assertOccurredAt,
  assertTiming,
  assertTopic,
  assertType,
  describe,
} from './fields.ts';
import { encodeHeaders } from './headers.ts';
import { type JsonFault, faultIn, formatPath, stringify } from './json.ts';
import type { Headers, Message, MessageKind } from './message.ts';

/** The largest message that is accepted unless an option says otherwise, in bytes. */
export const DEFAULT_MAX_MESSAGE_BYTES = 1_000_000;

/** A message as it is stored. Exactly one of `payload` (JSON text) and `payloadBytes` is set. */
export interface EncodedMessage {
  readonly id: string;
  readonly kind: MessageKind;
  readonly type: string;
  readonly topic: string;
  readonly key: string | null;
  /** JSON text. */
  readonly headers: string;
  readonly payload: string | null;
  readonly payloadBytes: Uint8Array | null;
  /** ISO 8601, in UTC. */
  readonly occurredAt: string;
  /** The same; null for never. */
  readonly expiresAt: string | null;
  /** The same; null for at once, or where there is a delay. */
  readonly deliverAt: string | null;
  readonly delayMs: number | null;
  /** Topic, key, type, headers and payload together, as UTF-8. */
  readonly bytes: number;
}

/**
 * Checks a message and turns it into what is stored, so that nothing that Postgres or a reader would refuse gets as far as
 * SQL. Takes messages that were put together by hand too. `trace` are headers for a message that names no trace itself.
 *
 * @throws TailraceError `INVALID_MESSAGE`, `INVALID_TYPE`, `INVALID_TOPIC`, `INVALID_KEY`, `INVALID_HEADER`,
 * `INVALID_PAYLOAD` (with the path), `MESSAGE_TOO_LARGE`.
 */
export function encodeMessage(
  message: Message,
  maxMessageBytes: number = DEFAULT_MAX_MESSAGE_BYTES,
  trace?: Headers,
): EncodedMessage {
  assertMessage(message);
  const { id, kind, type, topic, key, occurredAt } = message;
  const headers = encodeHeaders(message.headers, type, trace);
  const content = contentOf(message);
  const bytes = utf8Bytes(topic, key ?? '', type, headers) + contentBytes(content);
  assertFits(type, bytes, maxMessageBytes);
  if (content.payload !== null) assertFaithful(message, content.payload);
  return {
    id,
    kind,
    type,
    topic,
    key,
    headers,
    ...content,
    occurredAt: occurredAt.toISOString(),
    expiresAt: message.expiresAt?.toISOString() ?? null,
    deliverAt: message.deliverAt?.toISOString() ?? null,
    delayMs: message.delayMs ?? null,
    bytes,
  };
}

function assertMessage(message: unknown): asserts message is Message {
  if (typeof message !== 'object' || message === null || !('type' in message)) throw notAMessage(message);
  const { type, kind, id, topic, key, occurredAt } = message as Partial<Message>;
  assertType(type);
  assertKind(kind, type);
  assertId(id, type);
  assertTopic(topic, type);
  assertKey(key, type);
  assertOccurredAt(occurredAt, type);
  assertTiming(message as Partial<Message>, type);
}

function notAMessage(found: unknown): TailraceError {
  const isDefinition = typeof found === 'function' && 'kind' in found;
  const what = isDefinition ? `the definition ${found.name} itself` : describe(found);
  return new TailraceError(
    'INVALID_MESSAGE',
    `Not a message: ${what}. Expected what a definition makes when it is called, such as OrderPlaced({ … }).`,
  );
}

type Content = Pick<EncodedMessage, 'payload' | 'payloadBytes'>;

function contentOf({ type, payload }: Message): Content {
  if (types.isUint8Array(payload)) return { payload: null, payloadBytes: payload };
  const text = stringify(payload);
  if (typeof text !== 'string') throw invalidPayload(type, text);
  return { payload: text, payloadBytes: null };
}

function contentBytes({ payload, payloadBytes }: Content): number {
  return payload === null ? (payloadBytes?.byteLength ?? 0) : Buffer.byteLength(payload);
}

function utf8Bytes(...texts: string[]): number {
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
}

function assertFits(type: string, found: number, allowed: number): void {
  if (found <= allowed) return;
  throw new TailraceError(
    'MESSAGE_TOO_LARGE',
    `The message of type ${type} has ${String(found)} bytes; at most ${String(allowed)} are allowed. Store the payload elsewhere and send a reference, or raise maxMessageBytes.`,
    { details: { type, found, allowed } },
  );
}

function assertFaithful({ type, payload }: Message, text: string): void {
  const fault = faultIn(payload, text);
  if (fault !== undefined) throw invalidPayload(type, fault);
}

function invalidPayload(type: string, { path, found }: JsonFault): TailraceError {
  return new TailraceError(
    'INVALID_PAYLOAD',
    `The payload of ${type} cannot be stored as JSON. Found ${found} at ${formatPath('payload', path)}. Expected only what JSON can carry, or one Uint8Array.`,
    { details: { type, path } },
  );
}
