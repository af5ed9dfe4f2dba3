import { parseLsn } from '../../../src/base/lsn.ts';
import type { Source } from '../../../src/relay/index.ts';
import { overriding } from '../overriding.ts';

/** Takes a batch that ends where the one before it ended for a repetition. The rows of one commit share their end. */
export function dedupeByLsn(source: Source): Source {
  return {
    async open(resume, signal) {
      const reader = await source.open(resume, signal);
      let last = 0n;
      return overriding(reader, {
        async next(nextSignal) {
          const batch = await reader.next(nextSignal);
          if (reader.status.mode !== 'wal') return batch;
          const end: bigint = parseLsn(batch.progress);
          const isRepetition = end <= last;
          last = end;
          return isRepetition ? { ...batch, ids: [], topics: [], keyHashes: [] } : batch;
        },
      });
    },
  };
}
