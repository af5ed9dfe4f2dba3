import { types } from 'node:util';
import type { StandardSchemaV1 } from '@standard-schema/spec';
import { TailraceError } from '../base/errors.ts';
import { formatPath } from './json.ts';

/** One objection of a schema. */
interface Violation {
  readonly path: string;
  readonly message: string;
}

const MOST_SHOWN = 5;

/**
 * What the schema makes of a payload.
 *
 * @throws TailraceError `SCHEMA_VIOLATION`: names the type, the places and the schema's own objections, with the values
 * taken out; `details.violations` holds them all. `INVALID_OPTION`: the schema is asynchronous.
 */
export function conform<Output>(type: string, schema: StandardSchemaV1<unknown, Output>, payload: unknown): Output {
  const result = schema['~standard'].validate(payload);
  if (isThenable(result)) throw asynchronousSchema(type, result);
  if (result.issues === undefined) return result.value;
  throw violated(
    type,
    result.issues.map((issue) => violation(issue, payload)),
  );
}

function isThenable<T>(result: T | Promise<T>): result is Promise<T> {
  return typeof (result as { then?: unknown }).then === 'function';
}

function asynchronousSchema(type: string, result: Promise<unknown>): TailraceError {
  result.then(undefined, () => undefined); // its outcome no longer matters, and must not end the process
  return new TailraceError(
    'INVALID_OPTION',
    `The schema of ${type} answers with a promise, and a message is made at once. Use a schema without asynchronous checks, and run those before making the message.`,
  );
}

function violated(type: string, violations: readonly Violation[]): TailraceError {
  const shown = violations.slice(0, MOST_SHOWN).map(({ path, message }) => `${path}: ${message}`);
  const more = violations.length - shown.length;
  const list = more > 0 ? [...shown, `and ${String(more)} more`] : shown;
  return new TailraceError('SCHEMA_VIOLATION', `The payload of ${type} does not fit its schema: ${list.join('; ')}.`, {
    details: { type, violations },
  });
}

function violation(issue: StandardSchemaV1.Issue, payload: unknown): Violation {
  const path = (issue.path ?? []).map((step) => (typeof step === 'object' ? step.key : step));
  const values = [valueAt(payload, path), (issue as { input?: unknown }).input];
  return { path: formatPath('payload', path), message: values.reduce(withoutValue, withoutFullStop(issue.message)) };
}

function valueAt(payload: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, step) => {
    if (typeof value !== 'object' || value === null) return undefined;
    return (value as Record<PropertyKey, unknown>)[step];
  }, payload);
}

function withoutFullStop(message: string): string {
  return message.replace(/\.$/, '');
}

/** Some libraries quote the value that they object to; it may be personal or secret. */
function withoutValue(message: string, value: unknown): string {
  const text = printed(value);
  if (text === '') return message;
  const whole = new RegExp(`"${escaped(JSON.stringify(text).slice(1, -1))}"|${wordOf(text)}`, 'gu');
  return message.replace(whole, '(value hidden)');
}

function printed(value: unknown): string {
  if (types.isDate(value)) return Number.isNaN(value.getTime()) ? '' : value.toISOString();
  return ['string', 'number', 'bigint', 'boolean'].includes(typeof value) ? String(value) : '';
}

function wordOf(text: string): string {
  return `(?<![\\p{L}\\p{N}])${escaped(text)}(?![\\p{L}\\p{N}])`;
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}
