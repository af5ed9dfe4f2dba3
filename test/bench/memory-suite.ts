import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import type { LocalServer } from '../../src/postgres/local-server.ts';
import { withDatabase, writeBacklog, PAYLOAD_BYTES } from './backlog.ts';
import { memoryMiB, startProgram, startWorker } from './processes.ts';
import { row, type Row } from './report.ts';

export interface MemorySuiteOptions {
  readonly server: LocalServer;
  readonly messages: number;
  readonly say: (text: string) => void;
}

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** The highest resident memory of a `tailrace relay` process while it works a backlog off. */
export function memorySuite({ server, messages, say }: MemorySuiteOptions): Promise<Row[]> {
  return withDatabase(server.connectionString, 'bench_memory', async (connectionString, client) => {
    const warmUp = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await warmUp.next();
    await warmUp.stop();
    say(`memory: writing ${messages} messages`);
    await writeBacklog(client, messages);
    const relay = startProgram(CLI, ['relay', '--database-url', connectionString, '--json']);
    const started = performance.now();
    while ((await recordsInLog(client)) < messages) await new Promise((resolve) => setTimeout(resolve, 200));
    const seconds = (performance.now() - started) / 1000;
    const { peak } = await memoryMiB(relay.pid);
    await relay.stop();
    return [
      row({
        suite: 'memory',
        workload: `relay process through a backlog of ${messages} messages of ${PAYLOAD_BYTES} bytes`,
        figure: 'peak resident memory',
        unit: 'MiB',
        bar: { below: 200 },
        samples: [peak],
        details: { messagesPerSecond: Math.round(messages / seconds) },
      }),
    ];
  });
}

async function recordsInLog(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ n: number }>(
    'select coalesce(sum(count), 0)::int as n from tailrace.log_entry',
  );
  return rows[0]?.n ?? 0;
}
