import { inspect } from 'node:util';
import type { Backoff } from '../base/backoff.ts';
import { TailraceError } from '../base/errors.ts';

/** Whether a group or a member can be called so: 1 to 200 characters that Postgres can store. */
export function isName(given: unknown): given is string {
  return typeof given === 'string' && /^[^\0]{1,200}$/su.test(given);
}

/** The first name in an object that is none of those that are known. */
export function unknownName(given: object, known: readonly string[]): string | undefined {
  return Object.keys(given).find((name) => !known.includes(name));
}

/** @throws TailraceError `INVALID_OPTION`: not an object, or it has a name that is none of these. Absent is fine. */
export function assertNames(within: string, given: unknown, known: readonly string[]): void {
  if (given === undefined) return;
  if (typeof given !== 'object' || given === null) {
    throw invalid(`${within.slice(0, -1)} is ${shown(given)}. Expected an object with ${known.join(', ')}.`);
  }
  const unknown = unknownName(given, known);
  if (unknown !== undefined) throw invalid(`there is no option ${within}${unknown}. Expected ${known.join(', ')}.`);
}

/** @throws TailraceError `INVALID_OPTION`: a wait that is no wait, or a name that is not an option of {@link Backoff}. */
export function backoff(option: string, given: Backoff = {}): Backoff {
  assertNames(`${option}.`, given, ['initialMs', 'maxMs', 'factor']);
  const { initialMs, maxMs, factor } = given;
  return {
    ...(initialMs === undefined ? {} : { initialMs: whole(`${option}.initialMs`, initialMs, 0) }),
    ...(maxMs === undefined ? {} : { maxMs: whole(`${option}.maxMs`, maxMs, 0) }),
    ...(factor === undefined ? {} : { factor: atLeastOne(`${option}.factor`, factor) }),
  };
}

/** What each wait is multiplied by to give the next. @throws TailraceError `INVALID_OPTION` */
export function atLeastOne(option: string, given: number): number {
  if (Number.isFinite(given) && given >= 1) return given;
  throw invalid(`${option} is ${shown(given)}. Expected a number of 1 or more.`);
}

/** @throws TailraceError `INVALID_OPTION` */
export function name(option: string, given: string): string {
  if (isName(given)) return given;
  throw invalid(`${option} is ${shown(given)}. Expected 1 to 200 characters.`);
}

/** @throws TailraceError `INVALID_OPTION` */
export function flag(option: string, given: boolean): boolean {
  if (typeof given === 'boolean') return given;
  throw invalid(`${option} is ${shown(given)}. Expected true or false.`);
}

/** @throws TailraceError `INVALID_OPTION` */
export function oneOf<const Choice extends string>(
  option: string,
  given: Choice,
  choices: readonly Choice[],
  expected = choices.join(' or '),
): Choice {
  if (choices.includes(given)) return given;
  throw invalid(`${option} is ${shown(given)}. Expected ${expected}.`);
}

/** @throws TailraceError `INVALID_OPTION`: not a whole number, or outside the range, whose ends are in it. */
export function whole(option: string, given: number, least: number, most: number = 2 ** 31 - 1): number {
  if (Number.isInteger(given) && given >= least && given <= most) return given;
  throw invalid(`${option} is ${shown(given)}. Expected a whole number from ${least} to ${most}.`);
}

/** The error of an option, to be thrown. */
export function invalid(problem: string): TailraceError {
  return new TailraceError('INVALID_OPTION', `createConsumer: ${problem}`);
}

/** As it would be written in a program: a text in quotes, so that '8' and 8 are told apart. */
export function shown(given: unknown): string {
  if (typeof given === 'string') return JSON.stringify(given);
  return inspect(given, { depth: 1, breakLength: Number.POSITIVE_INFINITY });
}
