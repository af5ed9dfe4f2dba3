import { TailraceError } from './errors.ts';

/** A byte position in the write-ahead log. Compare as a bigint: its text form is unpadded hexadecimal. */
export type Lsn = bigint & { readonly __brand: 'Lsn' };

/** Marks a 64-bit integer as a log position. */
export function lsn(value: bigint): Lsn {
  return value as Lsn;
}

/** Reads Postgres' text form, such as `16/B374D848`. */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (match === null) {
    throw new TailraceError(
      'INVALID_OPTION',
      `Not a log position: ${text}. Expected two hexadecimal numbers, as in 16/B374D848.`,
    );
  }
  return lsn((BigInt(`0x${match[1] ?? ''}`) << 32n) | BigInt(`0x${match[2] ?? ''}`));
}

/** Writes Postgres' text form. */
export function formatLsn(value: Lsn): string {
  return `${(value >> 32n).toString(16).toUpperCase()}/${(value & 0xffffffffn).toString(16).toUpperCase()}`;
}
