import type { Headers, MessageKind } from '../message/message.ts';

/**
 * A message at an offset. Its payload is as the writer wrote it, not parsed: `payload` holds the text of a JSON payload,
 * `payloadBytes` the bytes of a binary one; exactly one of them is set.
 */
export interface LogRecord {
  readonly topic: string;
  readonly partition: number;
  /** The place in the partition; the offsets of a partition have no gaps. */
  readonly offset: bigint;
  readonly messageId: string;
  readonly kind: MessageKind;
  readonly type: string;
  readonly key: string | null;
  readonly headers: Headers;
  readonly payload: string | null;
  readonly payloadBytes: Buffer | null;
  readonly occurredAt: Date;
  /** From then on no handler begins it. Absent: it keeps for ever. */
  readonly expiresAt?: Date;
  /** No handler gets it before. Absent: at once. */
  readonly deliverAt?: Date;
}

/** A message that has no place in a log yet. */
export type NewRecord = Omit<LogRecord, 'topic' | 'partition' | 'offset'>;
