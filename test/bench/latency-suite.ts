import type { LocalServer } from '../../src/postgres/local-server.ts';
import { withDatabase } from './backlog.ts';
import { startWorker } from './processes.ts';
import { quantile, row, type Row } from './report.ts';

export interface LatencySuiteOptions {
  readonly server: LocalServer;
  readonly perSecond: number;
  readonly seconds: number;
  readonly rounds: number;
  readonly say: (text: string) => void;
}

/** From the return of COMMIT to the start of the handler; writer, relay and consumer are processes of their own. */
export async function latencySuite(options: LatencySuiteOptions): Promise<Row[]> {
  const rounds: number[][] = [];
  for (let n = 0; n < options.rounds; n++) rounds.push(await oneRound(options, n));
  return [
    row({
      suite: 'latency',
      workload: `${options.perSecond} messages/s for ${options.seconds} s, durable commits, an effect in each handler's transaction`,
      figure: 'commit to handler p99',
      unit: 'ms',
      bar: { below: 50 },
      samples: rounds.map((latencies) => quantile(latencies, 0.99)),
      details: {
        p50Ms: rounds.map((latencies) => quantile(latencies, 0.5)),
        p999Ms: rounds.map((latencies) => quantile(latencies, 0.999)),
        maxMs: rounds.map((latencies) => Math.max(...latencies)),
      },
    }),
  ];
}

function oneRound({ server, perSecond, seconds, say }: LatencySuiteOptions, n: number): Promise<number[]> {
  return withDatabase(server.connectionString, `bench_latency_${n}`, async (connectionString, client) => {
    say(`latency: round ${n + 1}, ${perSecond} messages/s for ${seconds} s`);
    await client.query('create table effect (n int not null)');
    const relay = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await relay.next();
    await client.query(`select tailrace.publish('ticks', null, 'Ticked', '{"n":-1}')`); // the topic comes with it
    const consumer = startWorker('latency-consumer.ts', { connectionString, messages: perSecond * seconds });
    await consumer.next();
    const writer = startWorker('latency-writer.ts', { connectionString, perSecond, seconds });
    const committed = (await writer.next())['committedAt'] as [string, number][];
    const handled = new Map((await consumer.next())['handledAt'] as [string, number][]);
    await Promise.all([writer.stop(), consumer.stop(), relay.stop()]);
    const latencies = committed.map(([id, at]) => (handled.get(id) ?? NaN) - at);
    if (latencies.some(Number.isNaN)) throw new Error('A message was committed and not handled.');
    return latencies;
  });
}
