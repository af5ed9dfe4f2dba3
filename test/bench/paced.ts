import type pg from 'pg';
import { withDatabase } from './backlog.ts';
import { startWorker, type Worker } from './processes.ts';
import type { Bench } from './suite.ts';

/** Messages that are committed at an even rate, each of which has a row as effect. */
export interface Pace {
  readonly perSecond: number;
  readonly seconds: number;
  /** Messages of a transaction. */
  readonly each?: number;
  readonly keys?: number;
  /** Numbers of the keys that fail for ever. */
  readonly failing?: readonly number[];
  readonly isBatched?: boolean;
}

/**
 * Messages of the first seconds are not counted: the consumer's pool opens its connections then, nothing is compiled yet, and
 * what gathered meanwhile is caught up with. How long the slowest of them took is told beside the figures.
 */
export const WARM_UP_SECONDS = 5;

/** From the commit of a message to the commit of its effect, in milliseconds by the server's clock. */
export interface Latencies {
  readonly warm: readonly number[];
  readonly coldMaxMs: number;
}

/** Writer, relay and consumer are processes of their own. */
export function pacedByTailrace(bench: Bench, pace: Pace): Promise<Latencies> {
  return paced(bench, pace, async ({ connectionString, client, keys, messages }) => {
    const relay = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await relay.next();
    await client.query(`select tailrace.publish('ticks', null, 'Ticked', '{"n":-1}')`); // the topic comes with it
    const { failing = [], isBatched = false } = pace;
    const failed = failing.reduce((sum, key) => sum + Math.ceil((messages - key) / keys), 0);
    const consumer = startWorker('latency-consumer.ts', {
      connectionString,
      messages: messages + 1 - failed,
      isBatched,
      failing: failing.map((key) => `key-${key}`),
    });
    await consumer.next();
    return [consumer, relay];
  });
}

/** The same with the least that can be done: a bare replication read plus one commit for each message. */
export function pacedByBareReader(bench: Bench, pace: Pace): Promise<Latencies> {
  return paced(bench, pace, async ({ connectionString, client, messages }) => {
    await client.query(`create publication bench_bare for table tailrace.outbox
      with (publish = 'insert', publish_via_partition_root = true)`);
    await client.query(`select pg_create_logical_replication_slot('bench_bare', 'pgoutput')`);
    const where = { publication: 'bench_bare', slot: 'bench_bare' };
    const reader = startWorker('bare-reader.ts', { connectionString, messages, ...where });
    await reader.next();
    return [reader];
  });
}

interface Place {
  readonly connectionString: string;
  readonly client: pg.Client;
  readonly keys: number;
  readonly messages: number;
}

/** `start` answers with the processes that handle, the one first that reports when all is handled. */
function paced(
  { server }: Bench,
  { perSecond, seconds, each = 1, keys = 100 }: Pace,
  start: (place: Place) => Promise<readonly [Worker, ...Worker[]]>,
): Promise<Latencies> {
  return withDatabase(server.connectionString, 'bench_paced', async (connectionString, client) => {
    await client.query('create table effect (n int not null, message_id uuid not null)');
    const messages = perSecond * (WARM_UP_SECONDS + seconds);
    const workers = await start({ connectionString, client, keys, messages });
    const writer = startWorker('latency-writer.ts', {
      connectionString,
      perSecond,
      seconds: WARM_UP_SECONDS + seconds,
      keys,
      each,
    });
    await writer.next();
    await workers[0].next();
    await Promise.all([writer, ...workers].map((worker) => worker.stop()));
    return readLatencies(client, perSecond * WARM_UP_SECONDS);
  });
}

async function readLatencies(client: pg.Client, warmUp: number): Promise<Latencies> {
  const { rows } = await client.query<{ n: number; ms: number }>(
    `select e.n, (extract(epoch from pg_xact_commit_timestamp(e.xmin) - pg_xact_commit_timestamp(o.xmin)) * 1000)::float8 as ms
     from effect e join tailrace.outbox o using (message_id) where e.n >= 0`,
  );
  const cold = rows.filter(({ n }) => n < warmUp).map(({ ms }) => ms);
  return { warm: rows.filter(({ n }) => n >= warmUp).map(({ ms }) => ms), coldMaxMs: Math.max(...cold) };
}
