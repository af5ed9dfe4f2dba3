import type pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';

const PER_APPEND = 500;

/** Appends messages of the outbox, by their positions, to a topic of the home log, without a relay. */
export async function append(
  connectionString: string,
  topic: string,
  partitions: number,
  positions: readonly number[],
): Promise<void> {
  const log = postgresLog({ connectionString, partitions });
  const released = new AbortController();
  const writer = await log.acquireWriter({ holder: 'bench', leaseMs: 600_000, signal: released.signal });
  const count = await writer.partitionCount(topic);
  for (let at = 0; at < positions.length; at += PER_APPEND) {
    const ids = positions.slice(at, at + PER_APPEND);
    const partition = (at / PER_APPEND) % count;
    await writer.append({ appends: [{ topic, partition, ids }], progress: String(ids.at(-1)) });
  }
  await writer.release();
  await log.close();
}

/** The positions of a topic's messages in the outbox, in order. */
export async function positionsOf(client: pg.Client, topic: string): Promise<number[]> {
  const { rows } = await client.query<{ position: string }>(
    'select position from tailrace.outbox where topic = $1 order by position',
    [topic],
  );
  return rows.map(({ position }) => Number(position));
}
