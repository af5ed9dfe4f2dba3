import pg from 'pg';
import type { LocalServer } from '../../src/postgres/local-server.ts';
import { withDatabase } from './backlog.ts';
import { startWorker, type Worker } from './processes.ts';
import { row, type Row } from './report.ts';

export interface WritersSuiteOptions {
  readonly server: LocalServer;
  readonly perSecond: number;
  /** How long each window lasts. */
  readonly seconds: number;
  /** How long a transaction is held open in each round; the window is its end. */
  readonly holdSeconds: number;
  readonly rounds: number;
  readonly say: (text: string) => void;
}

interface Window {
  readonly commits: number;
  readonly p50: number;
  readonly p99: number;
}

/** Something that writers should not notice. */
interface Disturbance {
  readonly name: string;
  readonly begin: () => Promise<void>;
  readonly end: () => Promise<void>;
}

const BAR = 1.3;

/** What business transactions pay for what goes on beside them: the ratio of their p99 with and without it, in turns. */
export function writersSuite(options: WritersSuiteOptions): Promise<Row[]> {
  const { server, perSecond } = options;
  return withDatabase(server.connectionString, 'bench_writers', async (connectionString, client) => {
    await client.query('create table stock (id int primary key, left_over bigint not null)');
    await client.query('insert into stock select n, 0 from generate_series(0, 9999) n');
    const relay = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await relay.next();
    await client.query(`select tailrace.publish('ticks', null, 'Ticked', '{"n":-1}')`); // the topic comes with it
    const writer = startWorker('steady-writer.ts', { connectionString, perSecond });
    try {
      await pause(options.seconds);
      const held = await measure(writer, heldSnapshot(connectionString, options), options);
      const members = startWorker('restless-members.ts', { connectionString });
      await members.next();
      const restless = await measure(writer, restlessness(members), options);
      await members.stop();
      return [held, restless];
    } finally {
      await Promise.all([writer.stop(), relay.stop()]);
    }
  });
}

async function measure(
  writer: Worker,
  { name, begin, end }: Disturbance,
  { perSecond, seconds, rounds, say }: WritersSuiteOptions,
): Promise<Row> {
  const quiet: Window[] = [];
  const disturbed: Window[] = [];
  for (let round = 1; round <= rounds; round++) {
    say(`writers: ${name}, round ${round}`);
    quiet.push(await windowOf(writer, seconds));
    await begin();
    disturbed.push(await windowOf(writer, seconds));
    await end();
  }
  return row({
    suite: 'writers',
    workload: `${perSecond} transactions/s ${name}, windows of ${seconds} s in turns with others without it`,
    figure: 'p99 of a business transaction, divided by that without',
    unit: '×',
    bar: { below: BAR },
    samples: disturbed.map(({ p99 }, n) => p99 / (quiet[n]?.p99 ?? NaN)),
    details: { quiet, disturbed },
  });
}

async function windowOf(writer: Worker, seconds: number): Promise<Window> {
  writer.tell('measure');
  await pause(seconds);
  writer.tell('report');
  return (await writer.next()) as unknown as Window;
}

/** A write transaction with a snapshot, which holds back the horizon of the whole cluster. */
function heldSnapshot(connectionString: string, { seconds, holdSeconds }: WritersSuiteOptions): Disturbance {
  let client: pg.Client | undefined;
  return {
    name: `while a transaction has held xmin for ${holdSeconds} s`,
    begin: async () => {
      client = new pg.Client(connectionString);
      await client.connect();
      await client.query('begin isolation level repeatable read');
      await client.query('select pg_current_xact_id()');
      await pause(holdSeconds - seconds);
    },
    end: async () => {
      await client?.query('rollback');
      await client?.end();
    },
  };
}

function restlessness(members: Worker): Disturbance {
  return {
    name: 'while 8 members of a group leave and join, one every 300 ms',
    begin: async () => {
      members.tell('restless');
      await members.next();
    },
    end: async () => {
      members.tell('quiet');
      await members.next();
    },
  };
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
