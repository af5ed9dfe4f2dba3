import { types } from 'node:util';

/** The deepest nesting of arrays and objects that a payload may have. Postgres' own parser takes a few thousand levels. */
export const MAX_DEPTH = 1_000;

type Path = readonly (string | number)[];

/** Why a value would not arrive as it was given, and where in it. Never holds the value. */
export interface JsonFault {
  readonly path: Path;
  /** Reads on after "found", such as `a function`. */
  readonly found: string;
}

/** The JSON text of a value, or why it has none. A text may still hide a loss: see {@link faultIn}. */
export function stringify(value: unknown): string | JsonFault {
  try {
    const text = JSON.stringify(value) as string | undefined;
    if (text !== undefined) return text;
  } catch {
    // The engine's message says little of the place, and one of a toJSON may quote the value.
  }
  return locateFault(value) ?? { path: [], found: 'something that JSON.stringify refuses' };
}

/**
 * What of a value is not in its JSON text, or is in it in a form that Postgres refuses: values that JSON writes as `null`,
 * as `{}` or not at all, NUL characters, lone surrogates, nesting beyond {@link MAX_DEPTH}. A property that is undefined
 * counts as absent, and what `toJSON` returns counts in place of the object, as in JSON itself.
 */
export function faultIn(value: unknown, text: string): JsonFault | undefined {
  if (isFaithful(value, 0) && !hasForbiddenEscape(text)) return undefined;
  return locateFault(value);
}

/**
 * An odd number of backslashes before the u makes it an escape. JSON.stringify escapes NUL and lone surrogates, always in
 * lower case, and no other surrogates.
 */
const FORBIDDEN_ESCAPE = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/;

function hasForbiddenEscape(text: string): boolean {
  return text.includes('\\u') && FORBIDDEN_ESCAPE.test(text);
}

/**
 * The quick look, at every payload: false where {@link locateFault} could find something in the structure. It may raise a
 * false alarm, and it does not look into strings.
 */
function isFaithful(value: unknown, depth: number): boolean {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return true;
    case 'number':
      return Number.isFinite(value);
    case 'object':
      return value === null || isFaithfulObject(value, depth);
    default:
      return false;
  }
}

function isFaithfulObject(value: object, depth: number): boolean {
  if (depth >= MAX_DEPTH) return false;
  if (!hasToJson(value)) return isFaithfulContent(value, depth);
  const written = value.toJSON('');
  if (isLostDate(value, written)) return false;
  // JSON asks for toJSON once: what it returns is written without being asked again.
  return typeof written === 'object' && written !== null
    ? isFaithfulContent(written, depth)
    : isFaithful(written, depth);
}

function isFaithfulContent(value: object, depth: number): boolean {
  if (Array.isArray(value)) return isFaithfulArray(value, depth);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return isFaithfulInstance(value, depth);
  for (const name in value) {
    const property = (value as Record<string, unknown>)[name];
    if (property !== undefined && !isFaithful(property, depth + 1)) return false;
  }
  return true;
}

function isFaithfulArray(value: readonly unknown[], depth: number): boolean {
  // By index: `every` skips holes, which JSON writes as null.
  for (let index = 0; index < value.length; index++) if (!isFaithful(value[index], depth + 1)) return false;
  return true;
}

function isFaithfulInstance(value: object, depth: number): boolean {
  if (opaqueName(value) !== undefined || types.isBoxedPrimitive(value)) return false;
  return Object.values(value).every((property) => property === undefined || isFaithful(property, depth + 1));
}

function hasToJson(value: object): value is { toJSON(key: string): unknown } {
  return typeof (value as { toJSON?: unknown }).toJSON === 'function';
}

function isLostDate(value: object, written: unknown): boolean {
  return written === null && types.isDate(value);
}

/** What JSON writes as `{}` or as a list of numbered properties, whatever is in it. */
function opaqueName(value: object): string | undefined {
  if (types.isMap(value)) return 'a Map';
  if (types.isSet(value)) return 'a Set';
  if (types.isPromise(value)) return 'a Promise';
  if (Object.prototype.toString.call(value) === '[object Error]') return 'an Error';
  if (types.isRegExp(value)) return 'a RegExp';
  if (types.isAnyArrayBuffer(value) || ArrayBuffer.isView(value)) return 'binary data inside JSON';
  if (types.isWeakMap(value) || types.isWeakSet(value)) return 'a weak collection';
  return undefined;
}

/** The exact look, once something is wrong: finds the first fault, in the order in which JSON is written. */
function locateFault(value: unknown): JsonFault | undefined {
  try {
    return new FaultSearch().inValue(value, []);
  } catch {
    return { path: [], found: 'something whose toJSON or getter throws' };
  }
}

class FaultSearch {
  readonly #ancestors = new Set<object>();

  inValue(value: unknown, path: Path): JsonFault | undefined {
    if (typeof value !== 'object' || value === null || !hasToJson(value)) return this.#inWritten(value, path);
    const written = value.toJSON(String(path.at(-1) ?? ''));
    return isLostDate(value, written) ? { path, found: 'an invalid Date' } : this.#inWritten(written, path);
  }

  #inWritten(value: unknown, path: Path): JsonFault | undefined {
    if (typeof value === 'object' && value !== null) return this.#inObject(value, path);
    const found = primitiveFault(value);
    return found === undefined ? undefined : { path, found };
  }

  #inObject(value: object, path: Path): JsonFault | undefined {
    if (this.#ancestors.has(value)) return { path, found: 'a circular reference' };
    if (this.#ancestors.size >= MAX_DEPTH) return { path, found: `nesting deeper than ${String(MAX_DEPTH)} levels` };
    this.#ancestors.add(value);
    const fault = this.#inContent(value, path);
    this.#ancestors.delete(value);
    return fault;
  }

  #inContent(value: object, path: Path): JsonFault | undefined {
    if (types.isBoxedPrimitive(value)) return this.#inWritten(value.valueOf(), path);
    const opaque = opaqueName(value);
    if (opaque !== undefined) return { path, found: opaque };
    return Array.isArray(value) ? this.#inArray(value, path) : this.#inProperties(value, path);
  }

  #inArray(value: readonly unknown[], path: Path): JsonFault | undefined {
    for (let index = 0; index < value.length; index++) {
      const fault = this.inValue(value[index], [...path, index]);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }

  #inProperties(value: object, path: Path): JsonFault | undefined {
    for (const [name, property] of Object.entries(value) as [string, unknown][]) {
      if (property === undefined) continue;
      const forbidden = forbiddenCharacter(name);
      if (forbidden !== undefined) return { path, found: `a property name with ${forbidden}` };
      const fault = this.inValue(property, [...path, name]);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }
}

function primitiveFault(value: unknown): string | undefined {
  switch (typeof value) {
    case 'string':
      return forbiddenCharacter(value);
    case 'number':
      return Number.isFinite(value) ? undefined : String(value);
    case 'bigint':
      return 'a bigint (write it as a string)';
    case 'undefined':
      return 'undefined';
    case 'function':
    case 'symbol':
      return `a ${typeof value}`;
    default:
      return undefined;
  }
}

/** Names the character that Postgres cannot store in text, if there is one. */
export function forbiddenCharacter(text: string): string | undefined {
  if (text.includes('\0')) return 'a NUL character';
  return text.isWellFormed() ? undefined : 'a lone surrogate';
}

const LONGEST_PATH = 200;

/** A path as one would write it in code: `payload.lines[2].price`. Long ones are cut in the middle. */
export function formatPath(root: string, path: readonly PropertyKey[]): string {
  const text = root + path.map(formatStep).join('');
  if (text.length <= LONGEST_PATH) return text;
  return `${text.slice(0, LONGEST_PATH / 2)} … ${text.slice(-LONGEST_PATH / 2)}`.toWellFormed();
}

function formatStep(step: PropertyKey): string {
  if (typeof step === 'number') return `[${String(step)}]`;
  const name = String(step);
  return /^[A-Za-z_$][\w$]*$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`;
}
