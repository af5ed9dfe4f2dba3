import { interleave } from './interleave.ts';
import { pacedByBareReader, pacedByTailrace, WARM_UP_SECONDS, type Latencies, type Pace } from './paced.ts';
import { quantile, row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** From the commit of a message to the commit of its effect; writer, relay and consumer are processes of their own. */
export const latencySuite: Suite = { thousand, 'ten-thousand': tenThousand };

async function thousand(bench: Bench): Promise<Row[]> {
  const pace: Pace = { perSecond: 1_000, seconds: size(bench, 10, 3) };
  const { rounds, ...others } = await interleave(bench, 'latency at 1,000 messages/s', {
    ours: () => pacedByTailrace(bench, pace),
    bare: () => pacedByBareReader(bench, pace),
  });
  const workload = describe(pace, 'a transaction and an effect for each');
  const details = { ours: rounds.map(({ ours }) => told(ours)), bare: rounds.map(({ bare }) => told(bare)), ...others };
  const of = (figure: string, q: number, atMost: number): Row =>
    row({
      suite: 'latency',
      workload,
      figure,
      unit: 'ms',
      bar: { atMost },
      samples: rounds.map(({ ours }) => quantile(ours.warm, q)),
      details,
    });
  return [
    of('commit to effect committed, p50', 0.5, 4),
    of('commit to effect committed, p99', 0.99, 20),
    row({
      suite: 'latency',
      workload,
      figure: 'p99 against a bare replication read plus one commit',
      unit: '×',
      bar: { atMost: 4 },
      samples: rounds.map(({ ours, bare }) => quantile(ours.warm, 0.99) / quantile(bare.warm, 0.99)),
      details,
    }),
  ];
}

async function tenThousand(bench: Bench): Promise<Row[]> {
  const pace: Pace = { perSecond: 10_000, seconds: size(bench, 10, 3), each: 10, isBatched: true };
  const { rounds, ...others } = await interleave(bench, 'latency at 10,000 messages/s', {
    ours: () => pacedByTailrace(bench, pace),
  });
  return [
    row({
      suite: 'latency',
      workload: describe(pace, '10 a transaction, batch handlers with an effect for each message'),
      figure: 'commit to effect committed, p99',
      unit: 'ms',
      bar: { atMost: 50 },
      samples: rounds.map(({ ours }) => quantile(ours.warm, 0.99)),
      details: { ours: rounds.map(({ ours }) => told(ours)), ...others },
    }),
  ];
}

function describe({ perSecond, seconds }: Pace, how: string): string {
  return `${perSecond} messages/s for ${seconds} s after ${WARM_UP_SECONDS} s of warm-up, ${how}, durable commits`;
}

function told({ warm, coldMaxMs }: Latencies): Readonly<Record<string, number>> {
  const of = (q: number): number => Math.round(quantile(warm, q) * 100) / 100;
  return { messages: warm.length, p50Ms: of(0.5), p99Ms: of(0.99), p999Ms: of(0.999), maxMs: of(1), coldMaxMs };
}
