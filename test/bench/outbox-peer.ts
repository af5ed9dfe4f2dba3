import { withDatabase, payload, writeBacklog, PAYLOAD_BYTES } from './backlog.ts';
import { interleave } from './interleave.ts';
import { startWorker } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench } from './suite.ts';

/** The same messages through the relay into the home log, and through the replication listener of pg-transactional-outbox to a sink that does nothing. */
export async function outboxPeer(bench: Bench): Promise<Row[]> {
  const ours = size(bench, 200_000, 40_000);
  const theirs = size(bench, 10_000, 3_000);
  const { rounds, ...others } = await interleave(bench, 'relay against pg-transactional-outbox', {
    ours: () =>
      withDatabase(bench.server.connectionString, 'bench_ours', async (connectionString, client) => {
        const warmUp = startWorker('relay-worker.ts', { connectionString, messages: 0 });
        await warmUp.next();
        await warmUp.stop();
        await writeBacklog(client, ours);
        return timed('relay-worker.ts', connectionString, ours);
      }),
    theirs: () =>
      withDatabase(bench.server.connectionString, 'bench_theirs', async (connectionString, client) => {
        const setUp = startWorker('outbox-peer-worker.ts', { connectionString, messages: 0 });
        await setUp.next();
        await setUp.stop();
        await client.query('set synchronous_commit = off');
        await client.query(
          `do $$ begin for n in 1..${theirs} loop
            insert into public.outbox (id, aggregate_type, aggregate_id, message_type, payload)
              values (gen_random_uuid(), 'order', 'order-' || n % 1000, 'OrderPlaced', '${payload()}');
            commit;
          end loop; end $$`,
        );
        await client.query('set synchronous_commit = on');
        await client.query('checkpoint');
        return timed('outbox-peer-worker.ts', connectionString, theirs);
      }),
  });
  return [
    row({
      suite: 'relay',
      workload: `backlog of single-message transactions of ${PAYLOAD_BYTES} bytes: ${ours} of ours, ${theirs} of theirs to a sink that does nothing`,
      figure: 'messages/s against pg-transactional-outbox',
      unit: '×',
      bar: { atLeast: 50 },
      samples: rounds.map((one) => one.ours.perSecond / one.theirs.perSecond),
      details: { ours: rounds.map((one) => one.ours), theirs: rounds.map((one) => one.theirs), ...others },
    }),
  ];
}

async function timed(
  worker: string,
  connectionString: string,
  messages: number,
): Promise<{ readonly perSecond: number; readonly clientCpuMicros: number }> {
  const running = startWorker(worker, { connectionString, messages });
  await running.next();
  const { seconds, cpuMicrosPerMessage } = await running.next();
  await running.stop();
  return {
    perSecond: Math.round(messages / Number(seconds)),
    clientCpuMicros: Math.round(Number(cpuMicrosPerMessage)),
  };
}
