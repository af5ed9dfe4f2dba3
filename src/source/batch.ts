import type { SourceBatch } from './source.ts';

/** The columns of a {@link SourceBatch} while they are being filled. */
export interface OutboxColumns {
  readonly ids: number[];
  readonly topics: string[];
  readonly keyHashes: number[];
}

export function emptyColumns(): OutboxColumns {
  return { ids: [], topics: [], keyHashes: [] };
}

/** Completes columns to a batch; a checkpoint only where there is one. */
export function sourceBatch(columns: OutboxColumns, progress: string, checkpoint: string | undefined): SourceBatch {
  return checkpoint === undefined ? { ...columns, progress } : { ...columns, progress, checkpoint };
}
