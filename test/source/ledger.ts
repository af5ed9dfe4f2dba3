import type pg from 'pg';
import type { Resume, SourceBatch, SourceReader, Source } from '../../src/source/source.ts';

/**
 * Stands where the relay and its log stand: takes batches, keeps what they bring in memory, and resumes a source from what
 * was kept. A batch that is not `keep`-ed is lost, as in a crash before the append.
 */
export class Ledger implements Resume {
  readonly ids: number[] = [];
  progress: string | undefined;
  checkpoint: string | undefined;
  #idsAtCheckpoint = 0;

  keep(batch: SourceBatch): void {
    this.ids.push(...batch.ids);
    this.progress = batch.progress;
    if (batch.checkpoint === undefined) return;
    this.checkpoint = batch.checkpoint;
    this.#idsAtCheckpoint = this.ids.length;
  }

  appendedSinceCheckpoint(): Promise<Float64Array> {
    return Promise.resolve(Float64Array.from(this.ids.slice(this.#idsAtCheckpoint)).sort());
  }
}

/** Reads batches into the ledger until `enough` says so after one; then closes the reader. */
export async function read(
  source: Source,
  ledger: Ledger,
  enough: (reader: SourceReader, batch: SourceBatch) => boolean,
  signal: AbortSignal = new AbortController().signal,
): Promise<void> {
  const reader = await source.open(ledger, signal);
  try {
    for (;;) {
      const batch = await reader.next(signal);
      ledger.keep(batch);
      reader.durable();
      if (enough(reader, batch)) return;
    }
  } finally {
    await reader.close();
  }
}

/** What the ledger holds, held against the outbox itself. */
export interface Verdict {
  readonly committed: number;
  readonly lost: number;
  readonly invented: number;
  readonly doubled: number;
  /** Messages whose number in their key is not above the one before. */
  readonly reordered: number;
}

/** The outbox's payload is the message's number within its key, given out under the key's lock. */
export async function judge(pool: pg.Pool, ledger: Ledger): Promise<Verdict> {
  const { rows } = await pool.query<{ position: string; key: string; n: string }>(
    `select position, key, payload::text as n from tailrace.outbox`,
  );
  const outbox = new Map(rows.map((row) => [Number(row.position), row]));
  const seen = new Set(ledger.ids);
  const last = new Map<string, number>();
  let reordered = 0;
  for (const id of ledger.ids) {
    const row = outbox.get(id);
    if (row === undefined) continue;
    if (Number(row.n) <= (last.get(row.key) ?? 0)) reordered += 1;
    last.set(row.key, Number(row.n));
  }
  return {
    committed: rows.length,
    lost: rows.length - [...seen].filter((id) => outbox.has(id)).length,
    invented: [...seen].filter((id) => !outbox.has(id)).length,
    doubled: ledger.ids.length - seen.size,
    reordered,
  };
}
