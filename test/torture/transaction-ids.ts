import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** In `pg_control`: behind what is known of the cluster comes a copy of the last checkpoint, in it `nextXid`, whose upper half is the epoch. */
const CHECKPOINT_AT = 40;
const EPOCH_AT = CHECKPOINT_AT + 24 + 4;

/**
 * Gives transaction ids another epoch, the upper half of their 64 bits, in a cluster that was shut down in good order: what
 * `pg_resetwal --epoch` does, which the servers of npm do not bring.
 *
 * @see https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/catalog/pg_control.h
 */
export async function setXidEpoch(dataDir: string, epoch: number): Promise<void> {
  const path = join(dataDir, 'global', 'pg_control');
  const control = await readFile(path);
  const crcAt = placeOfCrc(control);
  control.writeUInt32LE(epoch, EPOCH_AT);
  control.writeUInt32LE(crc32c(control.subarray(0, crcAt)), crcAt);
  await using file = await open(path, 'r+'); // keeps its owner
  await file.write(control, 0, control.length, 0);
}

/** The CRC is behind all that it is of; where, differs from version to version. */
function placeOfCrc(control: Buffer): number {
  for (let at = EPOCH_AT; at + 4 <= control.length; at += 4) {
    if (crc32c(control.subarray(0, at)) === control.readUInt32LE(at)) return at;
  }
  throw new Error('This is not a pg_control that can be changed: no CRC was found in it.');
}

/** Castagnoli's. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
