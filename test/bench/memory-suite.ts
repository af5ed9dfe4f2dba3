import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { withDatabase, writeBacklog, writeTransaction, PAYLOAD_BYTES } from './backlog.ts';
import { memoryMiB, startProgram, startWorker, until } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** The highest resident memory of a process while it works off a backlog, or streams one large transaction. */
export const memorySuite: Suite = { backlog, transaction };

export const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const BAR_MIB = 150;
/** As the README says for processes that are to be small: left alone, V8 takes what the machine has before it collects. */
const RELAY_FLAGS = ['--max-semi-space-size=2'];
const CONSUMER_FLAGS = ['--max-old-space-size=64', '--max-semi-space-size=1'];

/** A `tailrace relay`, and then a consumer with batch handlers, go through the same messages. */
function backlog(bench: Bench): Promise<Row[]> {
  const messages = size(bench, 1_000_000, 200_000);
  return withDatabase(bench.server.connectionString, 'bench_memory', async (connectionString, client) => {
    const warmUp = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await warmUp.next();
    await warmUp.stop();
    bench.say(`memory: writing ${messages} messages`);
    await writeBacklog(client, messages);
    bench.say('memory: the relay');
    const relay = startProgram(CLI, ['relay', '--database-url', connectionString, '--json'], RELAY_FLAGS);
    const started = performance.now();
    await until(async () => (await recordsInLog(client)) >= messages);
    const seconds = (performance.now() - started) / 1000;
    const relayMemory = await memoryMiB(relay.pid);
    await relay.stop();
    bench.say('memory: the consumer');
    await client.query('create table effect (customer text, quantity int)');
    const consumer = startWorker(
      'consume-worker.ts',
      { connectionString, messages, group: 'memory', who: 'consumer', batch: 500 },
      CONSUMER_FLAGS,
    );
    const handled = await consumer.next();
    const peak = Number(handled['peakMiB']);
    await consumer.stop();
    const of = (process: string, peakMiB: number, took: number): Row =>
      row({
        suite: 'memory',
        workload: `${process} through a backlog of ${messages} messages of ${PAYLOAD_BYTES} bytes`,
        figure: 'peak resident memory',
        unit: 'MiB',
        bar: { atMost: BAR_MIB },
        samples: [peakMiB],
        details: { messagesPerSecond: Math.round(messages / took) },
      });
    return [
      of(`relay process (node ${RELAY_FLAGS.join(' ')})`, relayMemory.peak, seconds),
      of(`consumer process with batch handlers (node ${CONSUMER_FLAGS.join(' ')})`, peak, Number(handled['seconds'])),
    ];
  });
}

function transaction(bench: Bench): Promise<Row[]> {
  const messages = size(bench, 1_000_000, 200_000);
  return withDatabase(bench.server.connectionString, 'bench_transaction', async (connectionString, client) => {
    await setServer(client, "set wal_sender_timeout = '3s'");
    const relay = startProgram(CLI, ['relay', '--database-url', connectionString, '--json']);
    try {
      await until(async () => (await walsenders(client)).length > 0);
      const senders = new Set(await walsenders(client));
      bench.say(`memory: writing ${messages} messages in one transaction`);
      await writeTransaction(client, messages);
      const started = performance.now();
      await until(async () => {
        for (const pid of await walsenders(client)) senders.add(pid);
        return (await recordsInLog(client)) >= messages;
      });
      const seconds = (performance.now() - started) / 1000;
      const { peak } = await memoryMiB(relay.pid);
      return [
        row({
          suite: 'memory',
          workload: `relay process through one transaction of ${messages} messages of ${PAYLOAD_BYTES} bytes, wal_sender_timeout 3 s`,
          figure: 'peak resident memory',
          unit: 'MiB',
          bar: { atMost: 200 },
          samples: [peak],
          details: { messagesPerSecond: Math.round(messages / seconds), streams: senders.size },
        }),
      ];
    } finally {
      await relay.stop();
      await setServer(client, 'reset wal_sender_timeout');
    }
  });
}

async function setServer(client: pg.Client, change: string): Promise<void> {
  await client.query(`alter system ${change}`);
  await client.query('select pg_reload_conf()');
}

/** The processes that stream from this database: a second one means that the first was ended. */
async function walsenders(client: pg.Client): Promise<number[]> {
  const { rows } = await client.query<{ pid: number }>(
    'select active_pid as pid from pg_replication_slots where database = current_database() and active',
  );
  return rows.map(({ pid }) => pid);
}

/** How many records the log of this database holds. */
export async function recordsInLog(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ n: number }>(
    'select coalesce(sum(count), 0)::int as n from tailrace.log_entry',
  );
  return rows[0]?.n ?? 0;
}
