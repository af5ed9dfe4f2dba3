import { withDatabase, payload, writeBacklog, PAYLOAD_BYTES } from './backlog.ts';
import { interleave, type Rounds } from './interleave.ts';
import { startWorker } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench } from './suite.ts';

/** Messages of a backlog, of ours and of pg-transactional-outbox. */
interface Sizes {
  readonly ours: number;
  readonly theirs: number;
}

/** How both learn of messages. */
type How = 'wal' | 'polling';

/** The same messages through the relay into the home log, and through pg-transactional-outbox to a sink that does nothing. */
export async function outboxPeer(bench: Bench): Promise<Row[]> {
  const sizes = { ours: size(bench, 200_000, 40_000), theirs: size(bench, 10_000, 3_000) };
  const { ours, theirs, ...others } = await race(bench, sizes, 'wal');
  return [
    row({
      suite: 'relay',
      workload: describe(sizes),
      figure: 'messages/s against pg-transactional-outbox',
      unit: '×',
      bar: { atLeast: 50 },
      samples: ours.map(({ perSecond }, n) => perSecond / (theirs[n]?.perSecond ?? NaN)),
      details: { ours, theirs, ...others },
    }),
  ];
}

/** The same, by polling both. */
export async function pollingPeer(bench: Bench): Promise<Row[]> {
  const sizes = { ours: size(bench, 200_000, 40_000), theirs: size(bench, 3_000, 1_000) };
  const { ours, theirs, ...others } = await race(bench, sizes, 'polling');
  return [
    row({
      suite: 'polling',
      workload: describe(sizes),
      figure: 'messages/s against the polling listener of pg-transactional-outbox',
      unit: '×',
      samples: ours.map(({ perSecond }, n) => perSecond / (theirs[n]?.perSecond ?? NaN)),
      details: { ours, theirs, ...others },
    }),
  ];
}

function describe({ ours, theirs }: Sizes): string {
  return `backlog of single-message transactions of ${PAYLOAD_BYTES} bytes: ${ours} of ours, ${theirs} of theirs to a sink that does nothing`;
}

interface Race {
  readonly ours: readonly Timed[];
  readonly theirs: readonly Timed[];
}

async function race(bench: Bench, sizes: Sizes, how: How): Promise<Race & Omit<Rounds<unknown>, 'rounds'>> {
  const { rounds, ...others } = await interleave(bench, `relay against pg-transactional-outbox, ${how}`, {
    ours: () =>
      withDatabase(bench.server.connectionString, 'bench_ours', async (connectionString, client) => {
        const mode = { connectionString, mode: how };
        const warmUp = startWorker('relay-worker.ts', { ...mode, messages: 0 });
        await warmUp.next();
        await warmUp.stop();
        await writeBacklog(client, sizes.ours);
        return timed('relay-worker.ts', mode, sizes.ours);
      }),
    theirs: () =>
      withDatabase(bench.server.connectionString, 'bench_theirs', async (connectionString, client) => {
        const setUp = startWorker('outbox-peer-worker.ts', { connectionString, how, messages: 0 });
        await setUp.next();
        await setUp.stop();
        await client.query('set synchronous_commit = off');
        await client.query(
          `do $$ begin for n in 1..${sizes.theirs} loop
            insert into public.outbox (id, aggregate_type, aggregate_id, message_type, segment, concurrency, payload)
              values (gen_random_uuid(), 'order', 'order-' || n % 1000, 'OrderPlaced', 'order-' || n % 1000, 'parallel',
                '${payload()}');
            commit;
          end loop; end $$`,
        );
        await client.query('set synchronous_commit = on');
        await client.query('vacuum analyze public.outbox');
        await client.query('checkpoint');
        return timed('outbox-peer-worker.ts', { connectionString, how }, sizes.theirs);
      }),
  });
  return { ours: rounds.map(({ ours }) => ours), theirs: rounds.map(({ theirs }) => theirs), ...others };
}

interface Timed {
  readonly perSecond: number;
  readonly clientCpuMicros: number;
}

async function timed(worker: string, work: object, messages: number): Promise<Timed> {
  const running = startWorker(worker, { ...work, messages });
  await running.next();
  const { seconds, cpuMicrosPerMessage } = await running.next();
  await running.stop();
  return {
    perSecond: Math.round(messages / Number(seconds)),
    clientCpuMicros: Math.round(Number(cpuMicrosPerMessage)),
  };
}
