import type pg from 'pg';
import { append, positionsOf } from './appended.ts';
import { PAYLOAD_BYTES, withDatabase } from './backlog.ts';
import { interleave } from './interleave.ts';
import { startRedis } from '../servers/redis.ts';
import { startWorker } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** A backlog handled by a consumer, by bare `pg` and by job queues in turns, with a row each as effect. */
export const consumeSuite: Suite = {
  batches: inBatches,
  'one-partition': (bench) => oneByOne(bench, 1),
  'eight-partitions': (bench) => oneByOne(bench, 8),
};

/** Who handles: see `consume-worker.ts` and `job-worker.ts`. */
type Who = 'consumer' | 'bare' | 'pg-boss' | 'graphile-worker' | 'bullmq';

interface Time {
  readonly perSecond: number;
  /** What the process that handles takes of the processor, for each message. */
  readonly cpuMicros: number;
}

const AT_ONCE = 8;
/** Job queues get this part of the messages: they are slower, and their rate counts. */
const PART_OF_PEERS = 0.25;

async function inBatches(bench: Bench): Promise<Row[]> {
  const messages = size(bench, 100_000, 20_000);
  const { times, ...others } = await handle(bench, { messages, partitions: 8, batch: 500 }, ['consumer', 'bare']);
  return [
    row({
      suite: 'consume',
      workload: `${messages} messages of ${PAYLOAD_BYTES} bytes in batches of 500, a row each as effect, a processed row each, 8 partitions`,
      figure: 'speed against the same inserts by bare pg',
      unit: '×',
      bar: { atLeast: 0.7 },
      samples: ratios(times, 'bare'),
      details: { ...times, ...others },
    }),
  ];
}

async function oneByOne(bench: Bench, partitions: number): Promise<Row[]> {
  const messages = size(bench, 40_000, 4_000);
  const peers = ['pg-boss', 'graphile-worker'] as const;
  await using redis = await startRedis({ appendonly: 'yes', appendfsync: 'everysec' });
  const workload = { messages, partitions, batch: 1, redisUrl: redis.url };
  const { times, ...others } = await handle(bench, workload, ['consumer', 'bare', ...peers, 'bullmq']);
  const against = (who: Who, figure: string, atLeast?: number): Row =>
    row({
      suite: 'consume',
      workload: `${messages} messages of ${PAYLOAD_BYTES} bytes, a transaction with a row as effect for each, ${AT_ONCE} at once, ${counted(partitions)}`,
      figure,
      unit: '×',
      ...(atLeast !== undefined && { bar: { atLeast } }),
      samples: ratios(times, who),
      details: { ...times, ...others },
    });
  return [
    against('bare', 'speed against bare pg: BEGIN, processed row, effect, COMMIT', 0.7),
    ...peers.map((peer) => against(peer, `speed against ${peer}`, 2)),
    against('bullmq', 'speed against BullMQ, which keeps jobs in Redis (AOF, everysec) and may repeat an effect'),
  ];
}

function ratios(times: Times, who: Who): number[] {
  return times.consumer?.map(({ perSecond }, n) => perSecond / (times[who]?.[n]?.perSecond ?? NaN)) ?? [];
}

function counted(partitions: number): string {
  return partitions === 1 ? '1 partition' : `${partitions} partitions`;
}

type Times = Readonly<Partial<Record<Who, readonly Time[]>>>;

interface Workload {
  readonly messages: number;
  readonly partitions: number;
  readonly batch: number;
  /** Where BullMQ keeps its jobs. */
  readonly redisUrl?: string;
}

function handle(
  bench: Bench,
  workload: Workload,
  contenders: readonly Who[],
): Promise<{ readonly times: Times; readonly neighbours: readonly number[]; readonly repeated: number }> {
  const { messages, partitions } = workload;
  return withDatabase(bench.server.connectionString, 'bench_consume', async (connectionString, client) => {
    await client.query('create table effect (customer text, quantity int)');
    await writeOrders(client, messages);
    await append(connectionString, 'orders', partitions, await positionsOf(client, 'orders'));
    let runs = 0;
    const time = (who: Who) => async (): Promise<Time> => {
      await client.query('truncate effect');
      await client.query('checkpoint');
      const isPeer = who !== 'consumer' && who !== 'bare';
      const some = isPeer ? Math.round(messages * PART_OF_PEERS) : messages;
      const worker = startWorker(isPeer ? 'job-worker.ts' : 'consume-worker.ts', {
        connectionString,
        ...workload,
        messages: some,
        who,
        group: `${who}-${(runs += 1)}`,
      });
      const { seconds, cpuMicros } = await worker.next();
      await worker.stop();
      await assertOnce(client, some);
      return { perSecond: Math.round(some / Number(seconds)), cpuMicros: Number(cpuMicros) };
    };
    const { rounds, ...others } = await interleave(
      bench,
      `consume, ${counted(partitions)}, ${workload.batch} a transaction`,
      Object.fromEntries(contenders.map((who) => [who, time(who)])),
    );
    const times = Object.fromEntries(contenders.map((who) => [who, rounds.map((round) => round[who] as Time)]));
    return { times, ...others };
  });
}

async function writeOrders(client: pg.Client, messages: number): Promise<void> {
  const empty = JSON.stringify({ customer: 'c-1', quantity: 2, note: '' });
  const payload = empty.replace('""}', `"${'x'.repeat(PAYLOAD_BYTES - empty.length)}"}`);
  await client.query(
    `insert into tailrace.outbox (message_id, topic, key, type, payload)
     select tailrace.uuid_v7(), 'orders', 'order-' || n % 1000, 'OrderPlaced', $1 from generate_series(1, $2::int) n`,
    [payload, messages],
  );
}

async function assertOnce(client: pg.Client, wanted: number): Promise<void> {
  const { rows } = await client.query<{ effects: number }>('select count(*)::int as effects from effect');
  if (rows[0]?.effects !== wanted) throw new Error(`Wanted ${wanted} effects, found ${rows[0]?.effects}.`);
}
