import { pause } from '../../../src/base/signal.ts';
import type { Fault } from '../fault.ts';
import { PATIENCE_MS, type Stage } from '../stage.ts';
import { waitUntil } from '../wait-until.ts';
import { moveGroupsBack } from './groups-back.ts';
import { streamsAgain } from './slots.ts';

/** Backends that end or stand still, and servers that go down. */
export const SERVERS: readonly Fault[] = [
  {
    name: 'backends-terminated',
    what: '`pg_terminate_backend` for every connection of relays, consumers and writers',
    async inject({ database, handlers }) {
      let isSeen = true;
      for (const each of new Set([database, handlers])) {
        const rows = await each.query(
          `select pg_terminate_backend(pid) from pg_stat_activity
             where application_name ~ '^(tailrace|consumer|writer)' and pid <> pg_backend_pid()`,
        );
        isSeen &&= rows.length > 0;
      }
      return isSeen;
    },
  },
  {
    name: 'backend-killed',
    what: 'a backend of the relay is killed with SIGKILL: the server ends all others and recovers',
    async inject(stage, random) {
      const name = random.pick(['tailrace writer', 'tailrace relay wal', 'tailrace relay control']);
      const pid = await findBackend(stage, NAMED, [name]);
      if (!signalBackend(pid, 'SIGKILL')) return false;
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
    inject: async (stage) => freezeBackend(stage, await findBackend(stage, APPENDING), 5_000),
  },
  {
    name: 'walsender-frozen',
    what: 'the backend that streams is stopped for 9 s, longer than `wal_sender_timeout`',
    slow: true,
    inject: async (stage) => freezeBackend(stage, await findBackend(stage, NAMED, ['tailrace relay wal']), 9_000),
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
    what: 'a standby that is half a second behind is promoted in the place of a server that died; relays halt until an operator accepts it, and consumers go on from what it has',
    slow: true,
    inject: (stage) => failOver(stage, false),
  },
  {
    name: 'failover-slots',
    what: 'the same with a copy of the slot on the standby, for which the primary’s walsenders wait: nothing is handled that is gone then',
    slow: true,
    missing: ({ cluster }) =>
      Promise.resolve(Number(cluster.version) < 17 ? 'it takes Postgres 17 or later' : undefined),
    inject: async (stage) => (await streamsAgain(stage)) && failOver(stage, true),
  },
];

/** A server waits for a walsender until that has timed out, and writes a checkpoint: more than that is too long. */
const LONGEST_SHUTDOWN_MS = 30_000;

async function findBackend({ database, stop }: Stage, sql: string, values: readonly string[] = []): Promise<number> {
  let pid: number | undefined;
  const find = async (): Promise<boolean> => {
    const [row] = await database.query<{ pid: number }>(sql, values);
    pid = row?.pid;
    return pid !== undefined;
  };
  await waitUntil(find, PATIENCE_MS, stop);
  if (pid === undefined) throw new Error('The relay has no such connection.');
  return pid;
}

async function freezeBackend(stage: Stage, pid: number, ms: number): Promise<boolean> {
  stage.history.write('freeze-backend', 'info', { pid });
  if (!signalBackend(pid, 'SIGSTOP')) return false;
  await pause(ms, stage.stop);
  return signalBackend(pid, 'SIGCONT');
}

/** Returns false if it had ended by then. */
function signalBackend(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}

/** Standbys have a session of the same name; that of the relay that leads has appended last. */
const APPENDING = `select pid from pg_stat_activity where application_name = 'tailrace writer' and query like '%relay_batch%'
  order by query_start desc limit 1`;

const NAMED = 'select pid from pg_stat_activity where application_name = $1 order by backend_start desc limit 1';

/** So many have been handled, and some of them were committed after the standby had fallen behind. */
const FEW_EFFECTS = 200;

/** Consumers live on: what they have in memory means other messages in the new history. */
async function failOver(stage: Stage, keepsSlots: boolean): Promise<boolean> {
  const { cluster, database, handlers, stop } = stage;
  const haltsBefore = stage.halts;
  const effectsBefore = await stage.effects();
  let handled: readonly { readonly id: string }[] = [];
  let committed = 0;
  stage.allowedHalts = ['WRONG_CLUSTER'];
  stage.history.write('failover', 'invoke', { keepsSlots });
  await cluster.failOver(async () => {
    const before = await stage.effects();
    const isHandled = async (): Promise<boolean> => (await stage.effects()) > before + FEW_EFFECTS;
    if (!keepsSlots) await waitUntil(isHandled, PATIENCE_MS, stop);
    await pause(keepsSlots ? 1_500 : 500, stop);
    handled = await handlers.query<{ id: string }>('select distinct id from torture.effect where seq > $1', [
      effectsBefore,
    ]);
    committed = await stage.commits();
  }, keepsSlots);
  stage.history.write('failover', 'ok');
  const lost = committed - (await stage.commits());
  await notePhantoms(stage, handled, keepsSlots);
  const halted = await waitUntil(() => stage.halts >= haltsBefore + stage.relays.length, PATIENCE_MS, stop);
  await stage.stopRelays();
  stage.allowedHalts = [];
  if (stage.hasOwnHandlers) await moveGroupsBack(stage);
  await database.query(
    `update tailrace.relay_lease set timeline = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int`,
  );
  await stage.startRelays();
  return halted && (lost > 0 || !keepsSlots);
}

/** Messages that were handled, and whose transactions are gone with the server that died. */
async function notePhantoms(
  stage: Stage,
  handled: readonly { readonly id: string }[],
  keepsSlots: boolean,
): Promise<void> {
  const phantoms = await stage.database.query<{ id: string }>(
    `select h.id from unnest($1::bigint[]) h (id) where not exists (select from torture.truth t where t.id = h.id) order by 1`,
    [handled.map(({ id }) => id)],
  );
  const ids = phantoms.map(({ id }) => Number(id));
  stage.history.write('phantoms', 'info', { ids, keepsSlots });
  stage.phantoms.push(...ids);
  if (keepsSlots) stage.forbiddenPhantoms.push(...ids);
}
