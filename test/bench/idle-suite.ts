import type pg from 'pg';
import { withDatabase } from './backlog.ts';
import { CLI } from './memory-suite.ts';
import { startProgram, until } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

const SETTLE_SECONDS = 30;
const RETAINED_BELOW_MIB = 64;

/** How long an idle outbox keeps the WAL that another table has written: seconds until its slot holds less than 64 MiB. */
export const idleSuite: Suite = { writes: beside };

function beside(bench: Bench): Promise<Row[]> {
  const { server, say } = bench;
  const mebibytes = size(bench, 1024, 256);
  return withDatabase(server.connectionString, 'bench_idle', async (connectionString, client) => {
    const relay = startProgram(CLI, ['relay', '--database-url', connectionString, '--json']);
    try {
      await until(async () => (await retainedMiB(client)) !== undefined);
      say(`idle: another table writes ${mebibytes} MiB`);
      await client.query('create table other (filling bytea)');
      await client.query('alter table other alter column filling set storage external');
      for (let written = 0; written < mebibytes; written += 64) {
        await client.query(
          `insert into other select decode(repeat(md5(n::text), 4096), 'hex') from generate_series(1, 1024) n`,
        );
      }
      const started = performance.now();
      const atEnd = await retainedMiB(client);
      const elapsed = (): number => (performance.now() - started) / 1000;
      let retained = atEnd;
      await until(async () => {
        retained = await retainedMiB(client);
        return (retained ?? 0) < RETAINED_BELOW_MIB || elapsed() > 2 * SETTLE_SECONDS;
      });
      return [
        row({
          suite: 'idle',
          workload: `an outbox without messages while another table writes ${mebibytes} MiB`,
          figure: `after the writes, until the slot retains under ${RETAINED_BELOW_MIB} MiB`,
          unit: 's',
          bar: { atMost: SETTLE_SECONDS },
          samples: [elapsed()],
          details: { retainedMiBAtEndOfWrites: atEnd, retainedMiB: retained },
        }),
      ];
    } finally {
      await relay.stop();
    }
  });
}

/** The WAL that the slot of this database holds, while somebody streams from it. */
async function retainedMiB(client: pg.Client): Promise<number | undefined> {
  const { rows } = await client.query<{ mib: number }>(
    `select (pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) / 1048576)::int as mib
     from pg_replication_slots where database = current_database() and active`,
  );
  return rows[0]?.mib;
}
