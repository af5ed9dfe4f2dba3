import { TailraceError } from '../base/errors.ts';
import { type EncodedMessage, encodeMessage } from '../message/encode.ts';
import type { Headers, Message, MessageKind } from '../message/message.ts';

/** One message, or several in order. */
export type OneOrMany<M> = M | readonly M[];

/** How messages are given: to tell whoever listens, or to address one receiver. */
export type Operation = 'publish' | 'send';

/** The messages that were given, in order. */
export function listOf(given: OneOrMany<Message>): readonly Message[] {
  return Array.isArray(given) ? (given as readonly Message[]) : [given as Message];
}

/**
 * Checks messages, and makes of them what is stored. `trace` are headers for those that name no trace themselves.
 *
 * @throws TailraceError `WRONG_KIND`; what a broken message throws (`INVALID_PAYLOAD`, `MESSAGE_TOO_LARGE`, …).
 */
export function checkedMessages(
  operation: Operation,
  messages: readonly Message[],
  maxMessageBytes: number,
  trace: Headers | undefined,
): EncodedMessage[] {
  const assertKind = operation === 'publish' ? assertPublishable : assertSendable;
  return messages.map((message) => {
    const checked = encodeMessage(message, maxMessageBytes, trace);
    assertKind(message);
    return checked;
  });
}

function assertPublishable({ kind, type }: Message): void {
  if (kind === 'event') return;
  throw wrongKind(
    `publish was given the ${kind} ${type}. To publish is to tell whoever listens, be it nobody or many, and a ${kind} is meant for one receiver. Use send, or defineEvent if it says what has happened.`,
    { type, kind },
  );
}

function assertSendable({ kind, type }: Message): void {
  if (kind !== 'event') return;
  throw wrongKind(
    `send was given the event ${type}. To send is to address one receiver, and an event states what has happened for whoever cares. Use publish, or defineCommand if somebody is to do something.`,
    { type, kind },
  );
}

function wrongKind(message: string, details: { type: string; kind: MessageKind }): TailraceError {
  return new TailraceError('WRONG_KIND', message, { details });
}
