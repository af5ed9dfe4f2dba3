import { parseLsn } from '../../../src/base/lsn.ts';
import type { HomeLog, LogWriter } from '../../../src/broker/log.ts';
import { overriding } from '../overriding.ts';

/** Takes what ends no further in the WAL than what was appended before for a repetition. The rows of one commit share their end. */
export function dedupeByLsn(log: HomeLog): HomeLog {
  return overriding(log, {
    async acquireWriter(options) {
      return withDedupe(await log.acquireWriter(options));
    },
  });
}

function withDedupe(writer: LogWriter): LogWriter {
  let last: bigint = parseLsn(writer.progress ?? '0/0');
  return overriding(writer, {
    async append(batch) {
      const end: bigint = parseLsn(batch.progress);
      const isRepetition = end > 0n && end <= last;
      last = end;
      await writer.append(isRepetition ? { ...batch, appends: [] } : batch);
    },
  });
}
