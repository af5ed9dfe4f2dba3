import pg from 'pg';
import { withDatabase, writeBacklog, PAYLOAD_BYTES } from './backlog.ts';
import { costOf } from './cost.ts';
import { interleave } from './interleave.ts';
import { pollingPeer } from './outbox-peer.ts';
import { assertWhole, type Drained } from './relay-suite.ts';
import { startWorker } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** A backlog read by asking for it, against a bare select of the same rows in batches. */
export const pollingSuite: Suite = { backlog, peer: pollingPeer };

const PAGE_ROWS = 5_000; // as the relay's

function backlog(bench: Bench): Promise<Row[]> {
  const messages = size(bench, 300_000, 60_000);
  const within = (name: string, use: (connectionString: string, client: pg.Client) => Promise<Drained>) => () =>
    withDatabase(bench.server.connectionString, `bench_${name}`, async (connectionString, client) => {
      await writeBacklog(client, messages);
      return use(connectionString, client);
    });
  return interleave(bench, 'polling', {
    ours: within('polled', async (connectionString, client) => {
      const { result, cost } = await costOf(bench, client, { messages }, async () => {
        const relay = startWorker('relay-worker.ts', { connectionString, messages, mode: 'polling' });
        await relay.next();
        const report = await relay.next();
        await relay.stop();
        return report;
      });
      await assertWhole(client, messages);
      return {
        seconds: Number(result['seconds']),
        cost: { ...cost, clientCpuMicros: Number(result['cpuMicrosPerMessage']) },
      };
    }),
    bare: within('selected', async (connectionString, client) => {
      const { result, cost } = await costOf(bench, client, { messages }, async () => {
        const reader = startWorker('select-worker.ts', { connectionString, pageRows: PAGE_ROWS });
        const report = await reader.next();
        await reader.stop();
        return report;
      });
      if (result['rows'] !== messages)
        throw new Error(`Selected ${String(result['rows'])} rows, expected ${messages}.`);
      return { seconds: Number(result['seconds']), cost };
    }),
  }).then(({ rounds, ...others }) => [
    row({
      suite: 'polling',
      workload: `backlog of ${messages} single-message transactions of ${PAYLOAD_BYTES} bytes by polling into the home log`,
      figure: `speed against a bare select of the same columns, ${PAGE_ROWS} rows at a time`,
      unit: '×',
      bar: { atLeast: 0.8 },
      samples: rounds.map(({ ours, bare }) => bare.seconds / ours.seconds),
      details: { ours: rounds.map(({ ours }) => ours), bare: rounds.map(({ bare }) => bare), ...others },
    }),
  ]);
}
