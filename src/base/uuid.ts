import { randomFillSync } from 'node:crypto';

/**
 * A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, 12 bits of their fraction (method 3 of section 6.2), 62 random bits.
 * Two made by one process more than a microsecond apart sort in the order they were made.
 */
export function uuidV7(nowMs: number = performance.timeOrigin + performance.now()): string {
  const bytes = randomFillSync(Buffer.allocUnsafe(16));
  const ms = Math.floor(nowMs);
  const fraction = Math.floor((nowMs - ms) * 4096);
  bytes.writeUIntBE(ms, 0, 6);
  bytes[6] = 0x70 | (fraction >> 8);
  bytes[7] = fraction & 0xff;
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
