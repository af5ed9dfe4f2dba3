import type { HomeLog, LogBatch, LogWriter } from '../../../src/broker/log.ts';
import { closeClient, openClient } from '../../../src/postgres/connection.ts';
import { overriding } from '../overriding.ts';

/** Appends behind whatever is in the log, under the epoch that it once had, without asking whose the lease is. */
export function noFence(log: HomeLog, databaseUrl: string): HomeLog {
  return overriding(log, {
    async acquireWriter(options) {
      return withoutFence(await log.acquireWriter(options), databaseUrl, options.holder);
    },
  });
}

async function withoutFence(writer: LogWriter, databaseUrl: string, holder: string): Promise<LogWriter> {
  const client = await openClient({ connectionString: databaseUrl, applicationName: 'sabotage' });
  const { rows } = await client.query<{ epoch: string }>('select epoch from tailrace.relay_lease where holder = $1', [
    holder,
  ]);
  const epoch = rows[0]?.epoch ?? '0';
  return overriding(writer, {
    async append({ appends, progress, checkpoint }: LogBatch) {
      await client.query('begin');
      const batch = await client.query<{ seq: string }>(
        `insert into tailrace.relay_batch (name, seq, epoch, progress, checkpoint)
           select 'relay', 1 + coalesce(max(seq), 0), $1, $2, $3 from tailrace.relay_batch returning seq`,
        [epoch, progress, checkpoint ?? null],
      );
      for (const { topic, partition, ids } of appends) {
        await client.query(
          `insert into tailrace.log_entry (partition, base, count, ids, seq)
             select p.id, coalesce((select e.base + e.count from tailrace.log_entry e
               where e.partition = p.id order by e.base desc limit 1), 0), cardinality($3::bigint[]), $3, $4
             from tailrace.log_partition p where p.topic = $1 and p.partition = $2`,
          [topic, partition, ids, batch.rows[0]?.seq],
        );
      }
      await client.query('commit');
    },
    async release() {
      await writer.release();
      await closeClient(client);
    },
  });
}
