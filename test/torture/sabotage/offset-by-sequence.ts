import { TailraceError } from '../../../src/base/errors.ts';
import type { HomeLog, LogBatch, LogWriter } from '../../../src/broker/log.ts';
import { closeClient, openClient } from '../../../src/postgres/connection.ts';
import { overriding } from '../overriding.ts';

/** Takes offsets from sequences, which do not give back what a transaction took that then failed. */
export function offsetBySequence(log: HomeLog, databaseUrl: string): HomeLog {
  return overriding(log, {
    async acquireWriter(options) {
      return withSequences(await log.acquireWriter(options), databaseUrl, options.holder);
    },
  });
}

async function withSequences(writer: LogWriter, databaseUrl: string, holder: string): Promise<LogWriter> {
  const client = await openClient({
    connectionString: databaseUrl,
    applicationName: 'sabotage',
    settings: { statement_timeout: '1000' },
  });
  const lease = await client.query<{ epoch: string }>('select epoch from tailrace.relay_lease where holder = $1', [
    holder,
  ]);
  const epoch = lease.rows[0]?.epoch ?? '0';

  const append = async ({ appends, progress, checkpoint }: LogBatch): Promise<void> => {
    const batch = await client.query<{ seq: string }>(
      `with fence as materialized (
         select 1 from tailrace.relay_lease where name = 'relay' and epoch = $1 for key share
       )
       insert into tailrace.relay_batch (name, seq, epoch, progress, checkpoint)
         select 'relay', 1 + (select coalesce(max(seq), 0) from tailrace.relay_batch), $1, $2, $3 from fence returning seq`,
      [epoch, progress, checkpoint ?? null],
    );
    if (batch.rowCount === 0) throw new TailraceError('LEASE_LOST', 'Another relay has taken over.');
    for (const { topic, partition, ids } of appends) {
      const name = `torture.offset_${topic.replaceAll(/\W/g, '_')}_${partition}`;
      const { rows } = await client.query<{ base: string }>(
        `select setval($1, (select pg_sequence_last_value($1::regclass)) + $2) - $2 - 1 as base`,
        [name, ids.length],
      );
      await client.query(
        `insert into tailrace.log_entry (partition, base, count, ids, seq)
           select p.id, $3, $4, $5, $6 from tailrace.log_partition p where p.topic = $1 and p.partition = $2`,
        [topic, partition, rows[0]?.base, ids.length, ids, batch.rows[0]?.seq],
      );
    }
  };

  return overriding(writer, {
    async append(batch) {
      for (const { topic, partition } of batch.appends) {
        const name = `torture.offset_${topic.replaceAll(/\W/g, '_')}_${partition}`;
        await client.query(`create sequence if not exists ${name}`);
        await client.query(`select nextval($1) where pg_sequence_last_value($1::regclass) is null`, [name]);
      }
      for (;;) {
        try {
          await client.query('begin');
          await append(batch);
          await client.query('commit');
          return;
        } catch (error) {
          await client.query('rollback');
          if (!isTimeout(error)) throw error;
        }
      }
    },
    async release() {
      await writer.release();
      await closeClient(client);
    },
  });
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '57014';
}
