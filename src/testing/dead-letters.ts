import type pg from 'pg';
import { decodePayload } from '../message/decode.ts';
import type { Headers } from '../message/message.ts';

/** A message that its group has given up on, as it is kept in `parked_message`. */
export interface DeadLetter {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly messageId: string;
  readonly type: string;
  readonly key: string | null;
  readonly headers: Headers;
  /** The value of its JSON, or its bytes; those of text that is no JSON. */
  readonly payload: unknown;
  /** `HANDLER_FAILED` or `INVALID_PAYLOAD`. */
  readonly reason: string;
  /** What the last attempt failed with: a stack that begins with the error's message. */
  readonly error: string | null;
  readonly attempts: number;
}

interface Row {
  group_name: string;
  topic: string;
  partition: number;
  record_offset: string;
  message_id: string;
  type: string;
  key: string | null;
  headers: Headers;
  payload: string | null;
  payload_bytes: Buffer | null;
  reason: string;
  error: string | null;
  attempts: number;
}

/** All dead letters, in the order in which they were given up. */
export async function readDeadLetters(pool: pg.Pool, quotedSchema: string): Promise<DeadLetter[]> {
  const { rows } = await pool.query<Row>(
    `select group_name, topic, partition, record_offset::text, message_id, type, key, headers, payload::text, payload_bytes,
       reason, error, attempts
     from ${quotedSchema}.parked_message where dead order by parked_at, topic, partition, record_offset`,
  );
  return rows.map((row) => ({
    group: row.group_name,
    topic: row.topic,
    partition: row.partition,
    offset: BigInt(row.record_offset),
    messageId: row.message_id,
    type: row.type,
    key: row.key,
    headers: row.headers,
    payload: decodePayload(undefined, { payload: row.payload, payloadBytes: row.payload_bytes }),
    reason: row.reason,
    error: row.error,
    attempts: row.attempts,
  }));
}
