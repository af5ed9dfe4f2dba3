import type pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { payload, withDatabase, writeBacklog } from './backlog.ts';
import { walBytesOfTailrace } from './cost.ts';
import { recordsInLog } from './memory-suite.ts';
import { pause, startWorker, until } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** Whether messages that are kept make new ones dearer. */
export const scaleSuite: Suite = { kept };

interface Sample {
  readonly relayCpuMicros: number;
  readonly pagesPerFetch: number;
  readonly walBytes: number;
}

const RECORDS = 1_000;
const AT_MOST = 1.15;

function kept(bench: Bench): Promise<Row[]> {
  const keep = size(bench, 10_000_000, 400_000);
  const messages = size(bench, 100_000, 40_000);
  return withDatabase(bench.server.connectionString, 'bench_scale', async (connectionString, client) => {
    const sampled = async (what: string): Promise<Sample[]> => {
      const samples: Sample[] = [];
      for (let round = 0; round < bench.rounds; round += 1) {
        bench.say(`scale: ${what}, round ${round + 1} of ${bench.rounds}`);
        samples.push(await sample(connectionString, client, messages));
      }
      return samples;
    };
    await leaveSlot(connectionString);
    await sample(connectionString, client, messages); // the topic, and what is only done once
    const empty = await sampled('empty');
    bench.say(`scale: writing ${keep} messages`);
    await keepMessages(connectionString, client, keep);
    const full = await sampled(`${keep} messages kept`);
    const of = (figure: string, field: keyof Sample): Row =>
      row({
        suite: 'scale',
        workload: `backlogs of ${messages} single-message transactions, with ${keep} messages kept against hardly any`,
        figure,
        unit: '×',
        bar: { atMost: AT_MOST },
        samples: full.map((one, n) => one[field] / (empty[n]?.[field] ?? NaN)),
        details: { empty: empty.map((one) => one[field]), full: full.map((one) => one[field]) },
      });
    return [
      of('CPU of the relay for a message', 'relayCpuMicros'),
      of('pages for a fetch', 'pagesPerFetch'),
      of('write-ahead log for a message', 'walBytes'),
    ];
  });
}

async function leaveSlot(connectionString: string): Promise<void> {
  const warmUp = startWorker('relay-worker.ts', { connectionString, messages: 0 });
  await warmUp.next();
  await warmUp.stop();
}

async function sample(connectionString: string, client: pg.Client, messages: number): Promise<Sample> {
  await writeBacklog(client, messages);
  const relay = startWorker('relay-worker.ts', { connectionString, messages });
  await relay.next();
  const { cpuMicrosPerMessage } = await relay.next();
  await pause(2); // until the sessions have reported what they wrote
  const walBytes = (await walBytesOfTailrace(client)) / messages;
  await relay.stop();
  return {
    relayCpuMicros: Number(cpuMicrosPerMessage),
    walBytes,
    pagesPerFetch: await pagesPerFetch(connectionString, client),
  };
}

/** Pages of the outbox and the log, with their indexes, that a fetch of the newest records touches. */
async function pagesPerFetch(connectionString: string, client: pg.Client): Promise<number> {
  const log = postgresLog({ connectionString });
  const places = (await log.ends('orders')).map(({ partition, end }) => ({
    topic: 'orders',
    partition,
    offset: end - BigInt(RECORDS),
  }));
  const before = await pagesTouched(client);
  for (const place of places) await log.fetch([place], { maxRecords: RECORDS, maxBytes: 10_000_000 });
  await log.close();
  await pause(2);
  return ((await pagesTouched(client)) - before) / places.length;
}

async function pagesTouched(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ pages: number }>(
    `select sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)
       + coalesce(toast_blks_read, 0) + coalesce(toast_blks_hit, 0))::float8 as pages
     from pg_statio_user_tables where schemaname = 'tailrace' and (relname like 'outbox%' or relname = 'log_entry')`,
  );
  return rows[0]?.pages ?? 0;
}

const CHUNK = 200_000;

/** Has the relay append so many messages. */
async function keepMessages(connectionString: string, client: pg.Client, messages: number): Promise<void> {
  const relay = startWorker('relay-worker.ts', { connectionString, messages: 0 });
  await relay.next();
  const before = await recordsInLog(client);
  for (let written = 0; written < messages; written += CHUNK) {
    await client.query('select tailrace.ensure_outbox_partitions()');
    await client.query(
      `insert into tailrace.outbox (message_id, topic, key, type, payload)
       select gen_random_uuid(), 'orders', 'order-' || n % 1000, 'OrderPlaced', $1::json from generate_series(1, $2::int) n`,
      [payload(), Math.min(CHUNK, messages - written)],
    );
  }
  await until(async () => (await recordsInLog(client)) >= before + messages);
  await relay.stop();
  await client.query('vacuum analyze tailrace.outbox');
}
