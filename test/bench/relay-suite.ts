import { join } from 'node:path';
import type { LocalServer } from '../../src/postgres/local-server.ts';
import { withDatabase, writeBacklog, PAYLOAD_BYTES } from './backlog.ts';
import { startWorker, timeProgram } from './processes.ts';
import { row, type Row } from './report.ts';

export interface RelaySuiteOptions {
  readonly server: LocalServer;
  /** Where pg_recvlogical is. */
  readonly toolsDir: string;
  readonly messages: number;
  readonly rounds: number;
  readonly say: (text: string) => void;
}

interface Round {
  readonly ours: number;
  readonly peer: number;
  readonly cpuMicrosPerMessage: unknown;
  readonly batches: unknown;
}

/**
 * The same backlog, drained by pg_recvlogical to /dev/null and by the relay into the home log, durably, over the same TCP
 * address and from the same publication. Who goes first changes with every round.
 */
export async function relaySuite(options: RelaySuiteOptions): Promise<Row[]> {
  const rounds: Round[] = [];
  for (let n = 0; n < options.rounds; n++) rounds.push(await oneRound(options, n));
  const perSecond = (seconds: number): number => Math.round(options.messages / seconds);
  return [
    row({
      suite: 'relay',
      workload: `backlog of ${options.messages} single-message transactions of ${PAYLOAD_BYTES} bytes into the home log, TCP`,
      figure: 'relay against pg_recvlogical',
      unit: '×',
      bar: { atLeast: 0.8 },
      samples: rounds.map(({ ours, peer }) => peer / ours),
      details: {
        relayMessagesPerSecond: rounds.map(({ ours }) => perSecond(ours)),
        recvlogicalMessagesPerSecond: rounds.map(({ peer }) => perSecond(peer)),
        relayCpuMicrosPerMessage: rounds.map(({ cpuMicrosPerMessage }) => cpuMicrosPerMessage),
        relayBatches: rounds.map(({ batches }) => batches),
      },
    }),
  ];
}

function oneRound({ server, toolsDir, messages, say }: RelaySuiteOptions, n: number): Promise<Round> {
  return withDatabase(server.connectionString, `bench_relay_${n}`, async (connectionString, client) => {
    say(`relay: round ${n + 1}, writing ${messages} messages`);
    const warmUp = startWorker('relay-worker.ts', { connectionString, messages: 0 });
    await warmUp.next();
    await warmUp.stop(); // leaves the slot and a place in it
    await client.query(
      `select pg_copy_logical_replication_slot(slot_name, 'bench_peer_${n}') from pg_replication_slots where database = $1`,
      [`bench_relay_${n}`],
    );
    await writeBacklog(client, messages);
    const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');

    const peer = async (): Promise<number> =>
      timeProgram(
        join(toolsDir, 'pg_recvlogical'),
        [
          `--dbname=${connectionString}`,
          `--slot=bench_peer_${n}`,
          '--start',
          '--no-loop',
          '--file=/dev/null',
          `--endpos=${rows[0]?.lsn ?? ''}`,
          '--option=proto_version=1',
          '--option=publication_names=tailrace',
        ],
        {},
      );
    const ours = async (): Promise<Record<string, unknown>> => {
      const relay = startWorker('relay-worker.ts', { connectionString, messages });
      await relay.next();
      const report = await relay.next();
      await relay.stop();
      return report;
    };
    const first = n % 2 === 0 ? await peer() : undefined;
    const report = await ours();
    const seconds = { ours: Number(report['seconds']), peer: first ?? (await peer()) };
    await assertWhole(client, messages);
    say(`relay: round ${n + 1}, relay ${seconds.ours.toFixed(2)} s, pg_recvlogical ${seconds.peer.toFixed(2)} s`);
    return { ...seconds, cpuMicrosPerMessage: report['cpuMicrosPerMessage'], batches: report['batches'] };
  });
}

/** A fast relay that loses messages would win: the log must hold each once. */
async function assertWhole(client: { query: (sql: string) => Promise<unknown> }, messages: number): Promise<void> {
  const { rows } = (await client.query(
    'select count(*)::int as all, count(distinct id)::int as once from tailrace.log_entry, unnest(ids) id',
  )) as { rows: { all: number; once: number }[] };
  if (rows[0]?.all === messages && rows[0].once === messages) return;
  throw new Error(`The log holds ${rows[0]?.all} records, ${rows[0]?.once} of them different, expected ${messages}.`);
}
