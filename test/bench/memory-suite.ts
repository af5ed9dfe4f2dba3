import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import type { LocalServer } from '../../src/postgres/local-server.ts';
import { withDatabase, writeBacklog, writeTransaction, PAYLOAD_BYTES } from './backlog.ts';
import { memoryMiB, startProgram, startWorker } from './processes.ts';
import { row, type Row } from './report.ts';

export interface MemorySuiteOptions {
  readonly server: LocalServer;
  readonly messages: number;
  readonly say: (text: string) => void;
}

export const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const POLL_MS = 200;

/**
 * The highest resident memory of a `tailrace relay` process while it works off a backlog of small transactions, and while it
 * streams one large one from a server that ends a walsender which hears nothing for 3 s.
 */
export async function memorySuite(options: MemorySuiteOptions): Promise<Row[]> {
  return [await backlogRow(options), await transactionRow(options)];
}

function backlogRow({ server, messages, say }: MemorySuiteOptions): Promise<Row> {
  return withDatabase(server.connectionString, 'bench_memory', async (connectionString, client) => {
    const warmUp = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await warmUp.next();
    await warmUp.stop();
    say(`memory: writing ${messages} messages`);
    await writeBacklog(client, messages);
    const relay = startProgram(CLI, ['relay', '--database-url', connectionString, '--json']);
    const started = performance.now();
    await until(async () => (await recordsInLog(client)) >= messages);
    const seconds = (performance.now() - started) / 1000;
    const { peak } = await memoryMiB(relay.pid);
    await relay.stop();
    return row({
      suite: 'memory',
      workload: `relay process through a backlog of ${messages} messages of ${PAYLOAD_BYTES} bytes`,
      figure: 'peak resident memory',
      unit: 'MiB',
      bar: { below: 200 },
      samples: [peak],
      details: { messagesPerSecond: Math.round(messages / seconds) },
    });
  });
}

function transactionRow({ server, messages, say }: MemorySuiteOptions): Promise<Row> {
  return withDatabase(server.connectionString, 'bench_transaction', async (connectionString, client) => {
    await setServer(client, "set wal_sender_timeout = '3s'");
    const relay = startProgram(CLI, ['relay', '--database-url', connectionString, '--json']);
    try {
      await until(async () => (await walsenders(client)).length > 0);
      const senders = new Set(await walsenders(client));
      say(`memory: writing ${messages} messages in one transaction`);
      await writeTransaction(client, messages);
      const started = performance.now();
      await until(async () => {
        for (const pid of await walsenders(client)) senders.add(pid);
        return (await recordsInLog(client)) >= messages;
      });
      const seconds = (performance.now() - started) / 1000;
      const { peak } = await memoryMiB(relay.pid);
      return row({
        suite: 'memory',
        workload: `relay process through one transaction of ${messages} messages of ${PAYLOAD_BYTES} bytes, wal_sender_timeout 3 s`,
        figure: 'peak resident memory',
        unit: 'MiB',
        bar: { below: 200 },
        samples: [peak],
        details: { messagesPerSecond: Math.round(messages / seconds), streams: senders.size },
      });
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

export async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
}

async function recordsInLog(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ n: number }>(
    'select coalesce(sum(count), 0)::int as n from tailrace.log_entry',
  );
  return rows[0]?.n ?? 0;
}
