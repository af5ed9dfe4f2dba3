import type pg from 'pg';
import type { Snapshot } from '../../postgres/snapshot.ts';
import { emptyColumns, type OutboxColumns } from '../batch.ts';
import type { Checkpoint, Place } from '../place.ts';
import { difference, type DifferencePage } from './difference.ts';

/** New rows, and, when the sweep has come to its end, where the next one starts. */
export interface SweepPage {
  readonly rows: OutboxColumns;
  readonly checkpoint: Checkpoint | undefined;
}

/** One pass over everything that is visible in the outbox and not in the log. */
export class Sweep {
  readonly #client: pg.ClientBase;
  readonly #quotedSchema: string;
  readonly #pages: AsyncGenerator<DifferencePage, void, undefined>;
  readonly #place: Place;
  /** Positions in the log that this pass met again. */
  readonly #met = new Set<number>();

  constructor(client: pg.ClientBase, quotedSchema: string, from: Place, pageRows: number) {
    this.#client = client;
    this.#quotedSchema = quotedSchema;
    this.#pages = difference(client, quotedSchema, from.snapshot, pageRows);
    this.#place = from;
  }

  async next(): Promise<SweepPage> {
    const page = await this.#pages.next();
    if (page.done === true) throw new Error('The sweep is over.');
    const { rows, complete } = page.value;
    const fresh = this.#place.inLog.size === 0 ? rows : this.#withoutLogged(rows);
    const checkpoint = complete && { snapshot: complete, beyond: await this.#beyond(complete) };
    return { rows: fresh, checkpoint };
  }

  #withoutLogged(rows: OutboxColumns): OutboxColumns {
    const fresh = emptyColumns();
    rows.ids.forEach((id, n) => {
      if (this.#place.inLog.has(id)) {
        this.#met.add(id);
        return;
      }
      fresh.ids.push(id);
      fresh.topics.push(rows.topics[n] ?? '');
      fresh.keyHashes.push(rows.keyHashes[n] ?? -1);
    });
    return fresh;
  }

  /**
   * What is in the log and not seen by `snapshot`. What this pass did not meet is either not visible yet, or was visible
   * before it, as a dead letter that was routed later: that is covered.
   */
  async #beyond(snapshot: Snapshot): Promise<readonly number[]> {
    const notMet = this.#place.inLog.toArray().filter((id) => !this.#met.has(id));
    if (notMet.length === 0) return notMet;
    const { rows } = await this.#client.query<{ position: string }>(
      `select position from ${this.#quotedSchema}.outbox
        where position = any($1::bigint[]) and pg_visible_in_snapshot(tx::text::xid8, $2::pg_snapshot)`,
      [notMet, snapshot.toString()],
    );
    const seen = new Set(rows.map(({ position }) => Number(position)));
    return notMet.filter((id) => !seen.has(id));
  }
}
