import { withDatabase } from './backlog.ts';
import { interleave } from './interleave.ts';
import { startWorker } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** What `outbox.publish` costs a business transaction, against an insert into the outbox that is written by hand. */
export const publishSuite: Suite = { business: businessTransaction };

interface Time {
  readonly perSecond: number;
  readonly cpuMicros: number;
}

function businessTransaction(bench: Bench): Promise<Row[]> {
  const transactions = size(bench, 8_000, 2_000);
  return withDatabase(bench.server.connectionString, 'bench_publish', async (connectionString, client) => {
    await client.query('create table stock (id int primary key, left_over bigint not null)');
    await client.query('create table purchase (n bigint not null, item int not null)');
    await client.query('insert into stock select n, 0 from generate_series(0, 9999) n');
    const worker = startWorker('publish-worker.ts', { connectionString, transactions });
    const block = async (how: 'ours' | 'bare'): Promise<Time> => {
      worker.tell(how);
      return (await worker.next()) as unknown as Time;
    };
    try {
      await block('ours'); // compiles
      await block('bare');
      const { rounds, ...others } = await interleave(bench, 'publish', {
        ours: () => block('ours'),
        bare: () => block('bare'),
      });
      return [
        row({
          suite: 'publish',
          workload: `blocks of ${transactions} transactions of an update, an insert and a message, 8 at once, in turns in one process`,
          figure: 'transactions/s with outbox.publish against an insert written by hand',
          unit: '×',
          bar: { atLeast: 0.95 },
          samples: rounds.map(({ ours, bare }) => ours.perSecond / bare.perSecond),
          details: { ours: rounds.map(({ ours }) => ours), bare: rounds.map(({ bare }) => bare), ...others },
        }),
      ];
    } finally {
      await worker.stop();
    }
  });
}
