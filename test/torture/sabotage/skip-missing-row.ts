import type { FetchPosition, Log } from '../../../src/broker/log.ts';
import { overriding } from '../overriding.ts';

const WAIT_MS = 50;

/** Reads on behind a row that is not visible yet. */
export function skipMissingRow(log: Log): Log {
  return overriding(log, {
    async fetch(positions, options = {}) {
      const records = await log.fetch(positions, {
        ...options,
        maxWaitMs: Math.min(options.maxWaitMs ?? 0, WAIT_MS),
      });
      if (records.length > 0) return records;
      return log.fetch(await behindMissing(log, positions), { ...options, maxWaitMs: 0 });
    },
  });
}

/** The next offsets of those positions that lie below the end of their partition, and still gave nothing. */
async function behindMissing(log: Log, positions: readonly FetchPosition[]): Promise<FetchPosition[]> {
  const behind: FetchPosition[] = [];
  for (const topic of new Set(positions.map((position) => position.topic))) {
    const ends = await log.ends(topic);
    for (const position of positions) {
      const end = ends.find(({ partition }) => partition === position.partition)?.end ?? 0n;
      if (position.topic === topic && position.offset + 1n < end) {
        behind.push({ ...position, offset: position.offset + 1n });
      }
    }
  }
  return behind;
}
