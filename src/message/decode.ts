import { TailraceError } from '../base/errors.ts';
import type { Definition, PayloadOf } from './definition.ts';

/** A payload as it is stored: `payload` is JSON text, `payloadBytes` are bytes; exactly one of them is set. */
export interface StoredPayload {
  readonly payload: string | null;
  readonly payloadBytes: Buffer | null;
}

/**
 * The payload of a stored message: the value of its JSON, or its bytes. The definition gives the type and the name in
 * errors; its schema is not applied, since it has been applied when the message was made.
 *
 * @throws TailraceError `INVALID_PAYLOAD`: not JSON, or neither text nor bytes. The message keeps the payload to itself.
 */
export function decodePayload<D extends Definition>(definition: D, stored: StoredPayload): PayloadOf<D>;
export function decodePayload(definition: Definition | undefined, stored: StoredPayload): unknown;
export function decodePayload(definition: Definition | undefined, stored: StoredPayload): unknown {
  if (stored.payloadBytes !== null) return stored.payloadBytes;
  const subject = definition === undefined ? 'a message' : definition.type;
  if (stored.payload === null) throw undecodable(`The stored payload of ${subject} is missing`);
  try {
    return JSON.parse(stored.payload) as unknown;
  } catch {
    // The parser's own message quotes the payload.
    throw undecodable(`The stored payload of ${subject} is not JSON`);
  }
}

function undecodable(what: string): TailraceError {
  return new TailraceError('INVALID_PAYLOAD', `${what}. Look at how its writer stored it.`);
}
