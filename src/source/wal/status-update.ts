import type { Lsn } from '../../base/lsn.ts';

/** Milliseconds from the Unix epoch to Postgres' own, 2000-01-01 UTC. */
const POSTGRES_EPOCH_MS = 946_684_800_000;

/**
 * The standby status update: what was received, and what is durable and may be forgotten by the server.
 *
 * @see https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-STANDBY-STATUS-UPDATE
 */
export function statusUpdate(received: Lsn, durable: Lsn, replyRequested: boolean, nowMs: number): Buffer {
  const message = Buffer.alloc(34);
  message[0] = 0x72; // 'r'
  message.writeBigUInt64BE(received > durable ? received : durable, 1);
  message.writeBigUInt64BE(durable, 9);
  message.writeBigUInt64BE(durable, 17);
  message.writeBigInt64BE(BigInt(Math.round(nowMs - POSTGRES_EPOCH_MS)) * 1000n, 25);
  message[33] = replyRequested ? 1 : 0;
  return message;
}
