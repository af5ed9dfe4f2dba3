import { decodeHeaders } from '../../message/headers.ts';
import type { MessageKind } from '../../message/message.ts';
import { beyondEnd, removed } from '../checks.ts';
import type { FetchPosition } from '../log.ts';
import type { LogRecord } from '../record.ts';
import type { FetchRow } from './fetch-statement.ts';

/** A place in the log that names an outbox row which the reader's snapshot does not see. */
export interface MissingRow {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  /** The outbox position. */
  readonly id: string;
  /** Every transaction below `xmin` had ended when it was taken, and none from `xmax` on. */
  readonly snapshot: { readonly xmin: bigint; readonly xmax: bigint };
}

/** What one round trip found. */
export interface FetchPass {
  readonly records: LogRecord[];
  /** The positions that could not be read at all for now, since their very first row is missing. */
  readonly blocked: MissingRow[];
}

/**
 * Turns rows into records, and puts the records of each position together. Stops a position at its first missing row, and
 * never skips one.
 *
 * @param positions in the order that the statement was given.
 * @throws TailraceError `OFFSET_OUT_OF_RANGE`.
 */
export function readRows(rows: readonly FetchRow[], positions: readonly FetchPosition[]): FetchPass {
  const readings = positions.map((position) => new Reading(position));
  for (const row of rows) {
    const reading = readings[Number(row[0]) - 1];
    if (reading === undefined)
      throw new RangeError(`The server answered for position ${row[0]} of ${positions.length}.`);
    reading.add(row);
  }
  return {
    records: readings.flatMap(({ records }) => records),
    blocked: readings.flatMap(({ blocked }) => blocked ?? []),
  };
}

/** What was read from one position on. */
class Reading {
  readonly records: LogRecord[] = [];
  blocked: MissingRow | undefined;
  readonly #position: FetchPosition;
  #stopped = false;

  constructor(position: FetchPosition) {
    this.#position = position;
  }

  add(row: FetchRow): void {
    const [, n, id, messageId] = row;
    if (this.#stopped) return;
    if (id === null) throw beyondEnd(this.#position, this.#position.offset - BigInt(n));
    if (Number(n) !== this.records.length) throw removed(this.#position, this.#position.offset + BigInt(n));
    if (messageId === null) this.#stop(id, row);
    else this.records.push(recordOf(row, messageId, this.#position, this.#position.offset + BigInt(n)));
  }

  #stop(id: string, row: FetchRow): void {
    this.#stopped = true;
    if (this.records.length > 0) return;
    this.blocked = { ...this.#position, id, snapshot: { xmin: BigInt(row[11] ?? 0), xmax: BigInt(row[12] ?? 0) } };
  }
}

function recordOf(row: FetchRow, messageId: string, { topic, partition }: FetchPosition, offset: bigint): LogRecord {
  const [, , , , kind, type, key, headers, payload, payloadHex, occurredAtMs, , , expiresAtMs, deliverAtMs] = row;
  return {
    topic,
    partition,
    offset,
    messageId,
    kind: kind as MessageKind,
    type,
    key,
    headers: decodeHeaders(headers),
    payload,
    payloadBytes: payloadHex === null ? null : Buffer.from(payloadHex, 'hex'),
    occurredAt: new Date(Math.round(Number(occurredAtMs))),
    ...(expiresAtMs !== null && { expiresAt: dateNotBefore(expiresAtMs) }),
    ...(deliverAtMs !== null && { deliverAt: dateNotBefore(deliverAtMs) }),
  };
}

const YEAR_9999_MS = Date.UTC(9999, 11, 31);

/** Postgres counts microseconds: rounded up, a time is never too early. It also knows infinity. */
function dateNotBefore(ms: string): Date {
  return new Date(Math.max(-YEAR_9999_MS, Math.min(YEAR_9999_MS, Math.ceil(Number(ms)))));
}
