import type pg from 'pg';
import type { LogRecord } from '../broker/record.ts';

/** Why a record is set aside. */
export type ParkReason = 'HANDLER_FAILED' | 'INVALID_PAYLOAD' | 'UNHANDLED_TYPE';

/** What stands beside a record that is set aside. */
export interface ParkNote {
  readonly reason: ParkReason;
  /** Whether its attempts are used up; else it waits for an operator or a handler. */
  readonly dead: boolean;
  /** What the last attempt failed with. */
  readonly error: string | undefined;
  readonly attempts: number;
}

const LONGEST_ERROR = 8_000;

/** Keeps a full copy of a record in `parked_message`, inside the transaction of `client`. `schema` is quoted. */
export async function insertParked(
  client: pg.ClientBase,
  schema: string,
  group: string,
  generation: number,
  record: LogRecord,
  note: ParkNote,
): Promise<void> {
  const { json, bytes } = storable(record);
  await client.query(
    `insert into ${schema}.parked_message (group_name, topic, partition, record_offset, generation, message_id, key, type,
       kind, headers, payload, payload_bytes, occurred_at, dead, reason, error, attempts)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
     on conflict do nothing`,
    [
      group,
      record.topic,
      record.partition,
      record.offset.toString(),
      generation,
      record.messageId,
      record.key,
      record.type,
      record.kind,
      JSON.stringify(record.headers),
      json,
      bytes,
      record.occurredAt,
      note.dead,
      note.reason,
      note.error === undefined ? null : storableText(note.error),
      note.attempts,
    ],
  );
}

/** An error as it is kept for operators: its stack, which begins with its name and message. */
export function errorText(thrown: unknown): string {
  return thrown instanceof Error ? (thrown.stack ?? `${thrown.name}: ${thrown.message}`) : String(thrown);
}

/** Text that is no JSON does not fit the column `payload`; its bytes are kept instead. */
function storable({ payload, payloadBytes }: LogRecord): { json: string | null; bytes: Buffer | null } {
  if (payload === null || isJson(payload)) return { json: payload, bytes: payloadBytes };
  return { json: null, bytes: Buffer.from(payload) };
}

/** Postgres' text has no NUL. */
function storableText(text: string): string {
  return text.slice(0, LONGEST_ERROR).replaceAll('\0', '\uFFFD');
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
