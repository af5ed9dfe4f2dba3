import { pause } from '../../../src/base/signal.ts';
import type { Fault } from '../fault.ts';
import type { Random } from '../random.ts';
import { PATIENCE_MS, type Stage } from '../stage.ts';
import { waitUntil } from '../wait-until.ts';

/** Backends that end or stand still, and servers that go down. */
export const SERVERS: readonly Fault[] = [
  {
    name: 'backends-terminated',
    what: '`pg_terminate_backend` for every connection of relays, consumers and writers',
    async inject({ database }) {
      const rows = await database.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
           where application_name ~ '^(tailrace|consumer|writer)' and pid <> pg_backend_pid()`,
      );
      return rows.length > 0;
    },
  },
  {
    name: 'backend-killed',
    what: 'a backend of the relay is killed with SIGKILL: the server ends all others and recovers',
    async inject(stage, random) {
      const pid = await backendOf(stage, random, ['tailrace writer', 'tailrace relay wal', 'tailrace relay control']);
      process.kill(pid, 'SIGKILL');
      const isGone = async (): Promise<boolean> => {
        const rows = await stage.database.query('select from pg_stat_activity where pid = $1', [pid]);
        return rows.length === 0;
      };
      return waitUntil(isGone, PATIENCE_MS, stage.stop);
    },
  },
  {
    name: 'backend-frozen',
    what: 'the backend that appends is stopped for 5 s: a database that does not answer',
    async inject(stage, random) {
      return freezeBackend(stage, random, 'tailrace writer', 5_000);
    },
  },
  {
    name: 'walsender-frozen',
    what: 'the backend that streams is stopped for 9 s, longer than `wal_sender_timeout`',
    slow: true,
    async inject(stage, random) {
      return freezeBackend(stage, random, 'tailrace relay wal', 9_000);
    },
  },
  {
    name: 'server-restarted',
    what: 'the server is shut down in good order (fast), with everybody connected, and started again',
    async inject(stage) {
      const startedMs = performance.now();
      await stage.cluster.shutDown('fast');
      const tookMs = performance.now() - startedMs;
      if (tookMs > LONGEST_SHUTDOWN_MS) stage.dangers.push(`the server took ${Math.round(tookMs)} ms to shut down`);
      await stage.cluster.startAgain();
      return true;
    },
  },
  {
    name: 'server-stopped-hard',
    what: 'the server is shut down at once (immediate) and started again',
    async inject({ cluster }) {
      await cluster.shutDown('immediate');
      await cluster.startAgain();
      return true;
    },
  },
  {
    name: 'server-killed',
    what: 'the postmaster is killed with SIGKILL, and a new one started',
    async inject({ cluster }) {
      await cluster.shutDown('kill');
      await cluster.startAgain();
      return true;
    },
  },
  {
    name: 'failover',
    what: 'a standby that is half a second behind is promoted in the place of a server that died; relays halt until an operator accepts it, and consumers start anew',
    slow: true,
    inject: failOver,
  },
];

/** Then the server has ended those who were still connected. */
const LONGEST_SHUTDOWN_MS = 10_000;

async function backendOf({ database, stop }: Stage, random: Random, names: readonly string[]): Promise<number> {
  let pids: number[] = [];
  await waitUntil(
    async () => {
      const rows = await database.query<{ pid: number }>(
        'select pid from pg_stat_activity where application_name = any($1) order by backend_start',
        [names],
      );
      pids = rows.map(({ pid }) => pid);
      return pids.length > 0;
    },
    PATIENCE_MS,
    stop,
  );
  return random.pick(pids);
}

async function freezeBackend(stage: Stage, random: Random, name: string, ms: number): Promise<boolean> {
  const leader = await stage.someLeader();
  const pid = await (name === 'tailrace writer' ? writerBackend(stage) : backendOf(stage, random, [name]));
  stage.history.write('freeze-backend', 'info', { pid, name, leader: leader.name });
  process.kill(pid, 'SIGSTOP');
  await pause(ms, stage.stop);
  process.kill(pid, 'SIGCONT');
  return true;
}

/** The session that appends listens to the lease's channel as a standby's does; the leader's was busy last. */
async function writerBackend({ database }: Stage): Promise<number> {
  const { pid } = await database.one<{ pid: number }>(
    `select pid from pg_stat_activity where application_name = 'tailrace writer' and query like '%tailrace%relay_batch%'
       order by query_start desc limit 1`,
  );
  return pid;
}

/**
 * Consumers go down with the server. One that lived on would go on from the offsets that it has in memory, which the new
 * history gives to other messages.
 */
async function failOver(stage: Stage): Promise<boolean> {
  const { cluster, database, stop } = stage;
  const consumers = stage.consumers.map(({ name }) => name);
  const haltsBefore = stage.halts;
  stage.allowedHalts = ['WRONG_CLUSTER'];
  stage.history.write('failover', 'invoke');
  await cluster.failOver(async () => {
    await pause(500, stop);
    await stage.killConsumers();
  });
  stage.history.write('failover', 'ok');
  const halted = await waitUntil(() => stage.halts >= haltsBefore + stage.relays.length, PATIENCE_MS, stop);
  await stage.stopRelays();
  stage.allowedHalts = [];
  await database.query(
    `update tailrace.relay_lease set timeline = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int`,
  );
  await stage.startRelays();
  await Promise.all(consumers.map((name) => stage.start(name)));
  return halted;
}
