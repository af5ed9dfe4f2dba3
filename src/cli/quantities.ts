import { InvalidArgumentError } from 'commander';

const UNITS_MS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };
const UNITS_BYTES: Readonly<Record<string, number>> = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };

/** Reads `7d`, `12h`, `30m` or `90s` as milliseconds, and leaves `none`. For an option of commander, which has no null. */
export function durationOrNone(text: string): number | 'none' {
  return quantityOrNone(text, UNITS_MS, 'a time such as 7d, 12h, 30m or 90s, or none');
}

/** Reads `10GB`, `500MB`, `64kB` or `1000B` as bytes, and leaves `none`. For an option of commander, which has no null. */
export function bytesOrNone(text: string): number | 'none' {
  return quantityOrNone(text, UNITS_BYTES, 'a size such as 10GB or 500MB, or none');
}

function quantityOrNone(text: string, units: Readonly<Record<string, number>>, expected: string): number | 'none' {
  if (text === 'none') return text;
  const [, digits, unit = ''] = /^(\d{1,12})([A-Za-z]+)$/.exec(text) ?? [];
  const value = Number(digits) * (units[unit] ?? Number.NaN);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new InvalidArgumentError(`Expected ${expected}.`);
}

/** As {@link durationOrNone} reads it: in the largest unit that divides it. */
export function showDuration(ms: number | null): string {
  return show(ms, UNITS_MS, 'ms');
}

/** As {@link bytesOrNone} reads it. */
export function showBytes(bytes: number | null): string {
  return show(bytes, UNITS_BYTES, 'B');
}

function show(value: number | null, units: Readonly<Record<string, number>>, smallest: string): string {
  if (value === null) return 'none';
  const [unit, size] = Object.entries(units).findLast(([, each]) => value % each === 0) ?? [smallest, 1];
  return `${value / size}${unit}`;
}
