import type pg from 'pg';
import { withDatabase } from './backlog.ts';
import {
  changingPartitions,
  heldSnapshot,
  makeSmallPartitions,
  restlessMembers,
  type Disturbance,
} from './disturbances.ts';
import { interleave } from './interleave.ts';
import { pause, startWorker, type Worker } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** What business transactions pay for what goes on beside them: the ratio of their p99 with and without it, in turns. */
export const writersSuite: Suite = {
  xmin: (bench) =>
    whileWriting(bench, ({ connectionString }) => Promise.resolve(heldSnapshot(connectionString, size(bench, 60, 10)))),
  partitions: (bench) =>
    whileWriting(bench, ({ connectionString }) => Promise.resolve(changingPartitions(connectionString))),
  members: (bench) => whileWriting(bench, ({ connectionString }) => restlessMembers(connectionString)),
};

const PER_SECOND = 2_000;
const WARM_UP_SECONDS = 3;
const BAR = 1.3;

interface Window {
  readonly commits: number;
  readonly p50: number;
  readonly p99: number;
}

function whileWriting(
  bench: Bench,
  makeDisturbance: (at: { readonly connectionString: string }) => Promise<Disturbance>,
): Promise<Row[]> {
  return withDatabase(bench.server.connectionString, 'bench_writers', async (connectionString, client) => {
    await prepare(client);
    const relay = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await relay.next();
    await client.query(`select tailrace.publish(topic, null, type, '{"n":-1}')
      from (values ('ticks', 'Ticked'), ('orders', 'Ordered')) v (topic, type)`); // the topics come with them
    const writer = startWorker('steady-writer.ts', { connectionString, perSecond: PER_SECOND });
    try {
      const disturbance = await makeDisturbance({ connectionString });
      try {
        await pause(WARM_UP_SECONDS);
        return [await measure(bench, writer, disturbance)];
      } finally {
        await disturbance.close();
      }
    } finally {
      await Promise.all([writer.stop(), relay.stop()]);
    }
  });
}

async function prepare(client: pg.Client): Promise<void> {
  await client.query('create table stock (id int primary key, left_over bigint not null)');
  await client.query('insert into stock select n, 0 from generate_series(0, 9999) n');
  await makeSmallPartitions(client);
}

async function measure(bench: Bench, writer: Worker, { name, begin, end }: Disturbance): Promise<Row> {
  const seconds = size(bench, 6, 3);
  const done: unknown[] = [];
  const { rounds, ...others } = await interleave(bench, `writers ${name}`, {
    quiet: () => windowOf(writer, seconds),
    disturbed: async () => {
      await begin();
      const window = await windowOf(writer, seconds);
      done.push(await end());
      return window;
    },
  });
  return row({
    suite: 'writers',
    workload: `${PER_SECOND} transactions/s ${name}, windows of ${seconds} s in turns with others without it`,
    figure: 'p99 of a business transaction, divided by that without',
    unit: '×',
    bar: { atMost: BAR },
    samples: rounds.map(({ quiet, disturbed }) => disturbed.p99 / quiet.p99),
    details: {
      quiet: rounds.map(({ quiet }) => quiet),
      disturbed: rounds.map((one) => one.disturbed),
      done,
      ...others,
    },
  });
}

async function windowOf(writer: Worker, seconds: number): Promise<Window> {
  writer.tell('measure');
  await pause(seconds);
  writer.tell('report');
  return (await writer.next()) as unknown as Window;
}
