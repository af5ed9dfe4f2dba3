import { TailraceError } from '../base/errors.ts';
import { describe } from './fields.ts';
import { forbiddenCharacter } from './json.ts';
import type { Headers } from './message.ts';
import { TRACE_PARENT_HEADER } from './trace-context.ts';

/** The header that holds the version of a definition. */
export const SCHEMA_VERSION_HEADER = 'schema-version';

/** Where a reader finds headers that are not an object of names and values. */
const MALFORMED_HEADERS = 'malformed-headers';

const NO_HEADERS: Headers = Object.freeze(emptyHeaders());

function emptyHeaders(): Record<string, string> {
  return Object.create(null) as Record<string, string>;
}

/**
 * A frozen copy without a prototype, of the given headers and then of the added ones.
 *
 * @throws TailraceError `INVALID_HEADER`: see {@link encodeHeaders}.
 */
export function copyHeaders(type: string, given: Headers | undefined, added: Headers = NO_HEADERS): Headers {
  if (given === undefined && added === NO_HEADERS) return NO_HEADERS;
  if (given !== undefined) assertHeaders(given, type);
  return Object.freeze(Object.assign(emptyHeaders(), given, added));
}

/**
 * The JSON text of headers. `trace` is added to those that name no trace of their own.
 *
 * @throws TailraceError `INVALID_HEADER`: not an object, an empty name, a value that is not a string, or a NUL or lone
 * surrogate. The message keeps the values to itself.
 */
export function encodeHeaders(headers: unknown, type: string, trace?: Headers): string {
  if (headers === NO_HEADERS) return trace === undefined ? '{}' : JSON.stringify(trace);
  assertHeaders(headers, type);
  if (trace === undefined || Object.hasOwn(headers, TRACE_PARENT_HEADER)) return JSON.stringify(headers);
  return JSON.stringify({ ...headers, ...trace });
}

function assertHeaders(headers: unknown, type: string): asserts headers is Headers {
  if (typeof headers !== 'object' || headers === null || Array.isArray(headers)) {
    throw invalidHeader(`The headers of ${type} are ${describe(headers)}`);
  }
  for (const [name, value] of Object.entries(headers) as [string, unknown][]) assertHeader(name, value, type);
}

function assertHeader(name: string, value: unknown, type: string): void {
  if (name === '') throw invalidHeader(`A header of ${type} has an empty name`);
  const inName = forbiddenCharacter(name);
  if (inName !== undefined) throw invalidHeader(`The name of a header of ${type} has ${inName}`);
  const found = typeof value === 'string' ? forbiddenCharacter(value) : describe(value);
  if (found === undefined) return;
  throw invalidHeader(
    `The header ${JSON.stringify(name)} of ${type} ${typeof value === 'string' ? 'has' : 'is'} ${found}`,
  );
}

function invalidHeader(what: string): TailraceError {
  return new TailraceError(
    'INVALID_HEADER',
    `${what}. Expected names and values that are strings, without NUL characters and lone surrogates.`,
  );
}

/**
 * Reads stored headers, into an object without a prototype. Never throws: writers in other languages may have stored any
 * JSON. A value that is not a string is given as its JSON text. What is not an object of headers at all is given, whole, as
 * the header `malformed-headers`.
 */
export function decodeHeaders(text: string): Headers {
  if (text === '{}') return NO_HEADERS;
  const parsed = parseObject(text);
  if (parsed === undefined) return Object.freeze(Object.assign(emptyHeaders(), { [MALFORMED_HEADERS]: text }));
  const headers = emptyHeaders();
  for (const [name, value] of Object.entries(parsed)) {
    headers[name] = typeof value === 'string' ? value : JSON.stringify(value);
  }
  return Object.freeze(headers);
}

function parseObject(text: string): object | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}
