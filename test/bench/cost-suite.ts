import type pg from 'pg';
import { withDatabase, writeBacklog, PAYLOAD_BYTES } from './backlog.ts';
import { walBytesOfTailrace } from './cost.ts';
import { interleave } from './interleave.ts';
import { recordsInLog } from './memory-suite.ts';
import { pause, startWorker, until } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** What the log and the relay's progress add to the server's write-ahead log, for each message; not what its writers add. */
export const costSuite: Suite = { backlog, paced };

async function backlog(bench: Bench): Promise<Row[]> {
  const messages = size(bench, 300_000, 40_000);
  return costRow(bench, `backlog of ${messages} single-message transactions of ${PAYLOAD_BYTES} bytes`, 20, () =>
    withDatabase(bench.server.connectionString, 'bench_cost', async (connectionString, client) => {
      const warmUp = startWorker('relay-worker.ts', { connectionString, messages: 0 });
      await warmUp.next();
      await warmUp.stop();
      await writeBacklog(client, messages);
      const relay = startWorker('relay-worker.ts', { connectionString, messages });
      await relay.next();
      await relay.next();
      const bytes = await settled(client);
      await relay.stop();
      return bytes / messages;
    }),
  );
}

const PER_SECOND = 1_000;

async function paced(bench: Bench): Promise<Row[]> {
  const seconds = size(bench, 20, 8);
  const messages = PER_SECOND * seconds;
  return costRow(bench, `${PER_SECOND} messages/s for ${seconds} s`, 120, () =>
    withDatabase(bench.server.connectionString, 'bench_cost', async (connectionString, client) => {
      const relay = startWorker('relay-worker.ts', { connectionString, messages: 0 });
      await relay.next();
      await client.query('checkpoint');
      const before = await settled(client);
      const writer = startWorker('latency-writer.ts', {
        connectionString,
        perSecond: PER_SECOND,
        seconds,
        keys: 100,
        each: 1,
      });
      await writer.next();
      await until(async () => (await recordsInLog(client)) >= messages);
      const bytes = (await settled(client)) - before;
      await Promise.all([writer.stop(), relay.stop()]);
      return bytes / messages;
    }),
  );
}

async function costRow(bench: Bench, workload: string, atMost: number, measure: () => Promise<number>): Promise<Row[]> {
  const { rounds, ...others } = await interleave(bench, `cost, ${workload}`, { bytes: measure });
  return [
    row({
      suite: 'cost',
      workload,
      figure: 'write-ahead log of the log and the progress',
      unit: 'bytes/message',
      bar: { atMost },
      samples: rounds.map(({ bytes }) => Math.round(bytes * 10) / 10),
      details: others,
    }),
  ];
}

/** A session reports what it wrote a second later at the most, and those that are idle do so then. */
const REPORTED_WITHIN_SECONDS = 2;

async function settled(client: pg.Client): Promise<number> {
  await pause(REPORTED_WITHIN_SECONDS);
  return walBytesOfTailrace(client);
}
