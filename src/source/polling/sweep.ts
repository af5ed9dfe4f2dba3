import type pg from 'pg';
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
  readonly #pages: AsyncGenerator<DifferencePage, void, undefined>;
  readonly #place: Place;
  /** Positions in the log that this pass met again; the others are not visible yet. */
  readonly #met = new Set<number>();

  constructor(client: pg.ClientBase, quotedSchema: string, from: Place, pageRows: number) {
    this.#pages = difference(client, quotedSchema, from.snapshot, pageRows);
    this.#place = from;
  }

  async next(): Promise<SweepPage> {
    const page = await this.#pages.next();
    if (page.done === true) throw new Error('The sweep is over.');
    const { rows, complete } = page.value;
    const fresh = this.#place.inLog.size === 0 ? rows : this.#withoutLogged(rows);
    return { rows: fresh, checkpoint: complete && { snapshot: complete, beyond: this.#notMet() } };
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

  #notMet(): number[] {
    return this.#place.inLog.toArray().filter((id) => !this.#met.has(id));
  }
}
