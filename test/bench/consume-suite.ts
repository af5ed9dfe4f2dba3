import type pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import type { LocalServer } from '../../src/postgres/local-server.ts';
import { PAYLOAD_BYTES, withDatabase } from './backlog.ts';
import { startWorker } from './processes.ts';
import { row, type Row } from './report.ts';

export interface ConsumeSuiteOptions {
  readonly server: LocalServer;
  readonly messages: number;
  readonly rounds: number;
  readonly say: (text: string) => void;
}

interface Time {
  readonly perSecond: number;
  /** What the process that handles takes of the processor, for each message. */
  readonly cpuMicros: number;
}

/** A backlog handled by a consumer and by bare `pg` in turns, each message in a transaction of its own, 8 at once. */
export function consumeSuite({ server, messages, rounds, say }: ConsumeSuiteOptions): Promise<Row[]> {
  return withDatabase(server.connectionString, 'bench_consume', async (connectionString, client) => {
    await client.query('create table effect (customer text, quantity int)');
    await appendBacklog(connectionString, client, messages);
    const times: { readonly consumer: Time; readonly bare: Time }[] = [];
    for (let n = 0; n < rounds; n++) {
      const time = async (group: string, isBare: boolean): Promise<Time> => {
        await client.query('checkpoint');
        const worker = startWorker('consume-worker.ts', { connectionString, messages, group, isBare });
        const { seconds, cpuMicros } = await worker.next();
        await worker.stop();
        return { perSecond: Math.round(messages / Number(seconds)), cpuMicros: Number(cpuMicros) };
      };
      say(`consume: round ${n + 1}, ${messages} messages`);
      times.push({ bare: await time(`bare-${n}`, true), consumer: await time(`consumer-${n}`, false) });
    }
    await assertOnce(client, messages * rounds * 2);
    return [
      row({
        suite: 'consume',
        workload: `${messages} messages of ${PAYLOAD_BYTES} bytes, a row each as effect, durable commits, 8 at once`,
        figure: 'speed against bare pg: BEGIN, processed row, effect, COMMIT',
        unit: 'x',
        bar: { atLeast: 0.8 },
        samples: times.map(({ bare, consumer }) => consumer.perSecond / bare.perSecond),
        details: { consumer: times.map(({ consumer }) => consumer), bare: times.map(({ bare }) => bare) },
      }),
    ];
  });
}

async function appendBacklog(connectionString: string, client: pg.Client, messages: number): Promise<void> {
  const empty = JSON.stringify({ customer: 'c-1', quantity: 2, note: '' });
  const payload = empty.replace('""}', `"${'x'.repeat(PAYLOAD_BYTES - empty.length)}"}`);
  const { rows } = await client.query<{ position: string }>(
    `insert into tailrace.outbox (message_id, topic, key, type, payload)
     select tailrace.uuid_v7(), 'orders', 'order-' || n % 1000, 'OrderPlaced', $1
     from generate_series(1, $2::int) n returning position`,
    [payload, messages],
  );
  const log = postgresLog({ connectionString, partitions: 8 });
  const released = new AbortController();
  const writer = await log.acquireWriter({ holder: 'bench', leaseMs: 600_000, signal: released.signal });
  const count = await writer.partitionCount('orders');
  const ids = rows.map(({ position }) => Number(position));
  const PER_APPEND = 500;
  for (let at = 0; at < ids.length; at += PER_APPEND) {
    const chunk = ids.slice(at, at + PER_APPEND);
    const partition = (at / PER_APPEND) % count;
    await writer.append({ appends: [{ topic: 'orders', partition, ids: chunk }], progress: String(chunk.at(-1)) });
  }
  await writer.release();
  await log.close();
}

async function assertOnce(client: pg.Client, wanted: number): Promise<void> {
  const { rows } = await client.query<{ effects: number; processed: number }>(
    `select (select count(*)::int from effect) as effects,
       (select count(*)::int from tailrace.processed_message) as processed`,
  );
  const [found] = rows;
  if (found?.effects !== wanted || found.processed !== wanted) {
    throw new Error(`Wanted ${wanted} effects and processed rows, found ${JSON.stringify(found)}.`);
  }
}
