import { types } from 'node:util';
import { TailraceError } from '../base/errors.ts';
import { forbiddenCharacter } from './json.ts';
import type { MessageKind } from './message.ts';

const TOPIC = /^[A-Za-z0-9._-]{1,200}$/;
const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
const KINDS: readonly unknown[] = ['event', 'command', 'document'] satisfies MessageKind[];
const LONGEST_TYPE = 200;

/** @throws TailraceError `INVALID_TYPE`: not a string of 1 to 200 characters that Postgres can store. */
export function assertType(type: unknown): asserts type is string {
  const found = faultOfType(type);
  if (found === undefined) return;
  throw new TailraceError(
    'INVALID_TYPE',
    `The type of a message is ${found}. Expected a name of 1 to ${String(LONGEST_TYPE)} characters, such as OrderPlaced.`,
  );
}

function faultOfType(type: unknown): string | undefined {
  if (typeof type !== 'string') return describe(type);
  if (type === '') return 'empty';
  if (type.length > LONGEST_TYPE) return `${String(type.length)} characters long`;
  const forbidden = forbiddenCharacter(type);
  return forbidden === undefined ? undefined : `a string with ${forbidden}`;
}

/** @throws TailraceError `INVALID_TOPIC`: not 1 to 200 letters, digits, dots, underscores and hyphens. */
export function assertTopic(topic: unknown, type: string): asserts topic is string {
  if (typeof topic === 'string' && TOPIC.test(topic)) return;
  const found = typeof topic === 'string' ? JSON.stringify(shorten(topic)) : describe(topic);
  throw new TailraceError(
    'INVALID_TOPIC',
    `The topic of ${type} is ${found}. Expected 1 to 200 letters, digits, dots, underscores and hyphens, such as orders.`,
  );
}

/** @throws TailraceError `INVALID_KEY`: neither null nor a string that Postgres can store. The message keeps the key to itself. */
export function assertKey(key: unknown, type: string): asserts key is string | null {
  const found = faultOfKey(key);
  if (found === undefined) return;
  throw new TailraceError(
    'INVALID_KEY',
    `The key of ${type} is ${found}. Expected a string, or null if the order of its messages does not matter.`,
  );
}

function faultOfKey(key: unknown): string | undefined {
  if (key === null) return undefined;
  if (typeof key !== 'string') return describe(key);
  const forbidden = forbiddenCharacter(key);
  return forbidden === undefined ? undefined : `a string with ${forbidden}`;
}

/** @throws TailraceError `INVALID_MESSAGE`: not a UUID in its usual form. */
export function assertId(id: unknown, type: string): asserts id is string {
  if (typeof id === 'string' && UUID.test(id)) return;
  const found = typeof id === 'string' ? JSON.stringify(shorten(id)) : describe(id);
  throw new TailraceError(
    'INVALID_MESSAGE',
    `The id of a message of type ${type} is ${found}. Expected a UUID; leave it out to get a new one.`,
  );
}

/** @throws TailraceError `INVALID_MESSAGE`: not one of the three kinds. */
export function assertKind(kind: unknown, type: string): asserts kind is MessageKind {
  if (KINDS.includes(kind)) return;
  const found = typeof kind === 'string' ? JSON.stringify(shorten(kind)) : describe(kind);
  throw new TailraceError(
    'INVALID_MESSAGE',
    `The kind of a message of type ${type} is ${found}. Expected event, command or document.`,
  );
}

/** @throws TailraceError `INVALID_MESSAGE`: not a valid Date of the years 1 to 9999, which is what ISO 8601 writes plainly. */
export function assertOccurredAt(occurredAt: unknown, type: string): asserts occurredAt is Date {
  assertDate('occurredAt', occurredAt, type, 'for now');
}

/** When a message may be handled, as it was given. */
export interface Timing {
  readonly expiresAt?: unknown;
  readonly deliverAt?: unknown;
  readonly delayMs?: unknown;
}

const LONGEST_DELAY_MS = 100 * 365 * 24 * 3600 * 1000;

/** @throws TailraceError `INVALID_MESSAGE`: a time that is no time, a delay that is none, or both of these. */
export function assertTiming({ expiresAt, deliverAt, delayMs }: Timing, type: string): void {
  if (expiresAt !== undefined) assertDate('expiresAt', expiresAt, type, 'if it keeps for ever');
  if (deliverAt !== undefined) assertDate('deliverAt', deliverAt, type, 'for at once');
  if (delayMs === undefined) return;
  if (deliverAt !== undefined) throw timingFault(type, 'has both deliverAt and delayMs', 'one of them');
  const isDelay = typeof delayMs === 'number' && delayMs >= 0 && delayMs <= LONGEST_DELAY_MS;
  if (isDelay) return;
  const found = typeof delayMs === 'number' ? String(delayMs) : describe(delayMs);
  throw timingFault(type, `has the delayMs ${found}`, 'milliseconds, 0 or more, at most 100 years');
}

function timingFault(type: string, what: string, expected: string): TailraceError {
  return new TailraceError('INVALID_MESSAGE', `A message of type ${type} ${what}. Expected ${expected}.`);
}

function assertDate(name: string, date: unknown, type: string, meaning: string): asserts date is Date {
  const isDate = types.isDate(date);
  if (isDate && date.getUTCFullYear() >= 1 && date.getUTCFullYear() <= 9999) return;
  const found = isDate ? 'an invalid Date or one far away' : describe(date);
  throw new TailraceError(
    'INVALID_MESSAGE',
    `The ${name} of a message of type ${type} is ${found}. Expected a Date in the years 1 to 9999; leave it out ${meaning}.`,
  );
}

/** Says what kind of thing was found, never its content. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** The start of a text that may be too long to print. */
function shorten(text: string): string {
  return text.length <= 100 ? text : `${text.slice(0, 100)}…`;
}
