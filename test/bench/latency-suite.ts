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

/**
 * Messages of the first seconds are not counted: the consumer's pool opens its connections then, and nothing is compiled yet.
 * How long the slowest of them took is told beside the figures.
 */
const WARM_UP_SECONDS = 2;

/** Latencies of the messages of a round, in milliseconds. */
interface Round {
  readonly warm: readonly number[];
  readonly cold: readonly number[];
}

/** From the return of COMMIT to the start of the handler; writer, relay and consumer are processes of their own. */
export async function latencySuite(options: LatencySuiteOptions): Promise<Row[]> {
  const rounds: Round[] = [];
  for (let n = 0; n < options.rounds; n++) rounds.push(await oneRound(options, n));
  return [
    row({
      suite: 'latency',
      workload: `${options.perSecond} messages/s for ${options.seconds} s after ${WARM_UP_SECONDS} s of warm-up, durable commits, an effect in each handler's transaction`,
      figure: 'commit to handler p99',
      unit: 'ms',
      bar: { below: 50 },
      samples: rounds.map(({ warm }) => quantile(warm, 0.99)),
      details: {
        p50Ms: rounds.map(({ warm }) => quantile(warm, 0.5)),
        p999Ms: rounds.map(({ warm }) => quantile(warm, 0.999)),
        maxMs: rounds.map(({ warm }) => Math.max(...warm)),
        coldMaxMs: rounds.map(({ cold }) => Math.max(...cold)),
      },
    }),
  ];
}

/**
 * What a key that fails for ever costs the others: the ratio of their p99 with and without it, in turns. Its records are
 * parked, and tried again five times a second.
 */
export async function failingKeySuite(options: LatencySuiteOptions): Promise<Row[]> {
  const without: number[] = [];
  const beside: number[] = [];
  for (let n = 0; n < options.rounds; n++) {
    without.push(quantile((await oneRound(options, n, KEYS)).warm, 0.99));
    beside.push(quantile((await oneRound(options, n, KEYS, [0])).warm, 0.99));
  }
  return [
    row({
      suite: 'failing-key',
      workload: `${options.perSecond} messages/s of ${KEYS} keys for ${options.seconds} s, one key failing for ever, in turns with none`,
      figure: 'commit to handler p99 of the other keys, divided by that without',
      unit: '×',
      bar: { below: 2 },
      samples: beside.map((p99, n) => p99 / (without[n] ?? NaN)),
      details: { besideMs: beside, withoutMs: without },
    }),
  ];
}

const KEYS = 1_000;

/** Latencies of the messages of all keys that do not fail. */
function oneRound(
  { server, perSecond, seconds, say }: LatencySuiteOptions,
  n: number,
  keys = 100,
  failing: readonly number[] = [],
): Promise<Round> {
  return withDatabase(server.connectionString, `bench_latency_${n}`, async (connectionString, client) => {
    say(`latency: round ${n + 1}, ${perSecond} messages/s for ${seconds} s, ${failing.length} of ${keys} keys fail`);
    await client.query('create table effect (n int not null)');
    const relay = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await relay.next();
    await client.query(`select tailrace.publish('ticks', null, 'Ticked', '{"n":-1}')`); // the topic comes with it
    const warmUp = perSecond * WARM_UP_SECONDS;
    const messages = Array.from({ length: warmUp + perSecond * seconds }, (_, nth) => nth % keys);
    const consumer = startWorker('latency-consumer.ts', {
      connectionString,
      messages: messages.filter((key) => !failing.includes(key)).length,
      failing: failing.map((key) => `key-${key}`),
    });
    await consumer.next();
    const writer = startWorker('latency-writer.ts', {
      connectionString,
      perSecond,
      seconds: WARM_UP_SECONDS + seconds,
      keys,
    });
    const committed = (await writer.next())['committedAt'] as [string, number, number][];
    const handled = new Map((await consumer.next())['handledAt'] as [string, number][]);
    await Promise.all([writer.stop(), consumer.stop(), relay.stop()]);
    const latencies = committed
      .filter(([, , nth]) => !failing.includes(nth % keys))
      .map(([id, at, nth]) => ({ isCold: nth < warmUp, ms: (handled.get(id) ?? NaN) - at }));
    if (latencies.some(({ ms }) => Number.isNaN(ms))) throw new Error('A message was committed and not handled.');
    const { cold = [], warm = [] } = Object.groupBy(latencies, ({ isCold }) => (isCold ? 'cold' : 'warm'));
    return { cold: cold.map(({ ms }) => ms), warm: warm.map(({ ms }) => ms) };
  });
}
