import { join } from 'node:path';
import type pg from 'pg';
import { withDatabase, writeBacklog, PAYLOAD_BYTES } from './backlog.ts';
import { costOf, type Cost } from './cost.ts';
import { cpuSeconds } from './cpu.ts';
import { interleave, type Rounds } from './interleave.ts';
import { outboxPeer } from './outbox-peer.ts';
import { startWorker, timeProgram } from './processes.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/**
 * The same backlog, drained over the same TCP address and from the same publication by the relay into the home log, durably;
 * by pg_recvlogical to /dev/null; and by the server alone, which decodes it and counts.
 */
export const relaySuite: Suite = {
  single: async (bench) => {
    const drained = await drain(bench, size(bench, 300_000, 40_000), 1);
    const workload = `backlog of ${drained.messages} single-message transactions of ${PAYLOAD_BYTES} bytes into the home log, TCP`;
    return [
      ratio(
        drained,
        workload,
        'relay against pg_recvlogical',
        1.5,
        ({ ours, recvlogical }) => recvlogical.seconds / ours.seconds,
      ),
      ratio(
        drained,
        workload,
        'relay against the server alone',
        0.7,
        ({ ours, server }) => server.seconds / ours.seconds,
      ),
    ];
  },
  ten: async (bench) => {
    const drained = await drain(bench, size(bench, 1_000_000, 100_000), 10);
    const workload = `backlog of ${drained.messages} messages of ${PAYLOAD_BYTES} bytes, 10 a transaction, into the home log, TCP`;
    return [
      ratio(
        drained,
        workload,
        'relay against pg_recvlogical',
        1.5,
        ({ ours, recvlogical }) => recvlogical.seconds / ours.seconds,
      ),
    ];
  },
  peer: outboxPeer,
};

/** One of those who drained a backlog. */
export interface Drained {
  readonly seconds: number;
  readonly cost: Cost;
}

interface Round {
  readonly ours: Drained;
  readonly recvlogical: Drained;
  readonly server: Drained;
}

interface DrainedBacklog extends Rounds<Round> {
  readonly messages: number;
}

function ratio(
  { messages, rounds, neighbours, repeated }: DrainedBacklog,
  workload: string,
  figure: string,
  atLeast: number,
  of: (round: Round) => number,
): Row {
  const perSecond = ({ seconds }: Drained): number => Math.round(messages / seconds);
  const told = (who: keyof Round): unknown =>
    rounds.map((one) => ({ perSecond: perSecond(one[who]), ...one[who].cost }));
  return row({
    suite: 'relay',
    workload,
    figure,
    unit: '×',
    bar: { atLeast },
    samples: rounds.map(of),
    details: { ours: told('ours'), recvlogical: told('recvlogical'), server: told('server'), neighbours, repeated },
  });
}

async function drain(bench: Bench, messages: number, each: number): Promise<DrainedBacklog> {
  // A backlog of its own for each contender: who comes first leaves nothing that helps or hinders the next.
  const with_ = (name: string, use: (at: Place) => Promise<Drained>) => (): Promise<Drained> =>
    withDatabase(bench.server.connectionString, `bench_${name}`, async (connectionString, client) => {
      await leaveSlot(connectionString);
      await writeBacklog(client, messages, each);
      return use({ connectionString, client, slot: await slotOf(client), messages });
    });
  const drained = await interleave(bench, `relay, ${each} a transaction`, {
    ours: with_('ours', (at) => drainByRelay(bench, at)),
    recvlogical: with_('recvlogical', (at) => drainByRecvlogical(bench, at)),
    server: with_('server', (at) => drainByServer(bench, at)),
  });
  return { ...drained, messages };
}

interface Place {
  readonly connectionString: string;
  readonly client: pg.Client;
  readonly slot: string;
  readonly messages: number;
}

/** Starts a relay and ends it: it leaves its slot, from which everything that is written later is read. */
async function leaveSlot(connectionString: string): Promise<void> {
  const warmUp = startWorker('relay-worker.ts', { connectionString, messages: 0 });
  await warmUp.next();
  await warmUp.stop();
}

async function slotOf(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ name: string }>(
    'select slot_name as name from pg_replication_slots where database = current_database()',
  );
  return rows[0]?.name ?? '';
}

async function drainByRelay(bench: Bench, { connectionString, client, messages }: Place): Promise<Drained> {
  const { result, cost } = await costOf(bench, client, { messages }, async () => {
    const relay = startWorker('relay-worker.ts', { connectionString, messages });
    await relay.next();
    const report = await relay.next();
    const clientSeconds = await cpuSeconds(relay.pid);
    await relay.stop();
    return { seconds: Number(report['seconds']), cpuMicros: Number(report['cpuMicrosPerMessage']), clientSeconds };
  });
  await assertWhole(client, messages);
  return { seconds: result.seconds, cost: { ...cost, clientCpuMicros: Math.round(result.cpuMicros * 100) / 100 } };
}

async function drainByRecvlogical(bench: Bench, { connectionString, client, slot, messages }: Place): Promise<Drained> {
  const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
  const { result, cost } = await costOf(bench, client, { messages }, () =>
    timeProgram(join(bench.toolsDir, 'pg_recvlogical'), [
      `--dbname=${connectionString}`,
      `--slot=${slot}`,
      '--start',
      '--no-loop',
      '--file=/dev/null',
      `--endpos=${rows[0]?.lsn ?? ''}`,
      '--option=proto_version=1',
      '--option=publication_names=tailrace',
    ]),
  );
  return { seconds: result, cost };
}

async function drainByServer(bench: Bench, { client, slot, messages }: Place): Promise<Drained> {
  await client.query(`set work_mem = '1GB'`); // what it counts stays in memory
  const { result, cost } = await costOf(bench, client, { messages }, async () => {
    const started = performance.now();
    await client.query(
      `select count(*) from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1', 'publication_names', 'tailrace')`,
      [slot],
    );
    return (performance.now() - started) / 1000;
  });
  return { seconds: result, cost: { ...cost, clientCpuMicros: 0 } };
}

/** A fast relay that loses messages would win: the log must hold each once. */
export async function assertWhole(client: pg.Client, messages: number): Promise<void> {
  const { rows } = await client.query<{ all: number; once: number }>(
    'select count(*)::int as all, count(distinct id)::int as once from tailrace.log_entry, unnest(ids) id',
  );
  if (rows[0]?.all === messages && rows[0].once === messages) return;
  throw new Error(`The log holds ${rows[0]?.all} records, ${rows[0]?.once} of them different, expected ${messages}.`);
}
