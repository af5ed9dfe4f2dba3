import { TailraceError } from '../../base/errors.ts';
import type { MissingRow } from './fetch-rows.ts';

interface Sighting {
  /** From the first snapshot that missed the row. */
  readonly xmax: bigint;
  lastSeenMs: number;
}

const FORGET_AFTER_MS = 600_000;

/**
 * Tells rows that are not visible yet from rows that are gone. An entry is written once the row's commit stands in the WAL,
 * which may be before the row is visible. So the transaction of a missing row got its id before the one that wrote the
 * entry; a snapshot that sees the entry has an xmax above both. Once every transaction below that xmax has ended, a row
 * that is still missing will never come.
 *
 * @see https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT-PARTS
 */
export class MissingRows {
  readonly #sightings = new Map<string, Sighting>();

  /** Notes that a row was missed. True if it will never come. */
  isGone(row: MissingRow, nowMs: number): boolean {
    const sighting = this.#sightings.get(placeOf(row));
    if (sighting === undefined) {
      this.#forgetOld(nowMs);
      this.#sightings.set(placeOf(row), { xmax: row.snapshot.xmax, lastSeenMs: nowMs });
      return false;
    }
    sighting.lastSeenMs = nowMs;
    return row.snapshot.xmin >= sighting.xmax;
  }

  #forgetOld(nowMs: number): void {
    for (const [place, { lastSeenMs }] of this.#sightings) {
      if (nowMs - lastSeenMs > FORGET_AFTER_MS) this.#sightings.delete(place);
    }
  }
}

function placeOf({ topic, partition, offset, id }: MissingRow): string {
  return `${topic}/${partition}/${offset}/${id}`;
}

/** The error for an entry whose outbox row is gone. */
export function danglingEntry({ topic, partition, offset, id }: MissingRow, quotedSchema: string): TailraceError {
  return new TailraceError(
    'DANGLING_ENTRY',
    `The log names an outbox row that does not exist: ${topic} partition ${partition} offset ${offset} is at position ${id} of ${quotedSchema}.outbox, ` +
      'and every transaction that could have written it has ended. Somebody deleted the row, dropped its partition of the ' +
      'outbox, or wrote the entry by hand. Nothing is skipped: put the row back, or move the readers past this offset.',
    { details: { topic, partition, offset, outboxPosition: id } },
  );
}
