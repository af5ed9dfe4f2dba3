import { expect } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createRelay, pollingSource } from '../../src/relay/index.ts';
import type { TestDatabase } from '../servers/test-database.ts';

/** Runs a relay until everything that is committed in the outbox is in the log. */
export async function relayAll({ connectionString, pool }: TestDatabase, partitions = 8): Promise<void> {
  const log = postgresLog({ connectionString, partitions });
  try {
    await using relay = createRelay({ source: pollingSource({ connectionString }), log });
    await relay.start();
    const missing = async (): Promise<number | undefined> => {
      const { rows } = await pool.query<{ missing: number }>(
        `select ((select count(*) from tailrace.outbox)
          - (select coalesce(sum(count), 0) from tailrace.log_entry))::int as missing`,
      );
      return rows[0]?.missing;
    };
    await expect.poll(missing, { timeout: 60_000, interval: 10 }).toBe(0);
  } finally {
    await log.close();
  }
}
