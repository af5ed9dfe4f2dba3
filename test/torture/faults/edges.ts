import type { TortureCluster } from '../cluster.ts';
import type { Fault } from '../fault.ts';
import { PATIENCE_MS, type Stage } from '../stage.ts';
import { setXidEpoch } from '../transaction-ids.ts';
import { waitUntil } from '../wait-until.ts';

/** Clusters that have counted far already when the run begins. */
export const EDGES: readonly Fault[] = [
  {
    name: 'lsn-edge',
    what: 'the WAL begins 16 MB below 4 GiB, where the text of an LSN changes its length, and passes it under load',
    bySeed: true,
    prepare: goToEdge,
    inject: crossEdge,
  },
  {
    name: 'xid-edge',
    what: 'transaction ids begin above 2^32, where pgoutput gives their lower half only',
    bySeed: true,
    prepare: goAboveXidEdge,
    inject: seeLargeXids,
  },
];

const EDGE = '1/0';
const LAST_SEGMENT = '0/FF000000';

/** The rest of a segment is left empty, so most of 4 GiB is never written. */
async function goToEdge(cluster: TortureCluster): Promise<void> {
  await cluster.execute(
    `do $$ begin
       while pg_current_wal_insert_lsn() < '${LAST_SEGMENT}' loop
         perform pg_logical_emit_message(false, 'torture', 'x');
         perform pg_switch_wal();
       end loop;
     end $$`,
  );
}

/** What a crash would recover from is a checkpoint in the WAL: it has to know the new epoch too. */
async function goAboveXidEdge(cluster: TortureCluster): Promise<void> {
  await cluster.whileDown((dataDir) => setXidEpoch(dataDir, 1));
  await cluster.execute('checkpoint');
}

/** Observed: relays have stored progress on both sides of the edge. */
async function crossEdge(stage: Stage): Promise<boolean> {
  const { database, stop } = stage;
  return waitUntil(
    async () => {
      // What goes beside the messages brings the edge nearer on a machine that writes little.
      await database.query(
        `select pg_logical_emit_message(false, 'torture', repeat('x', 200000)) where pg_current_wal_lsn() < '${EDGE}'`,
      );
      const { before, after } = await database.one<{ before: boolean; after: boolean }>(
        `select exists (select from torture.batch where progress > '${LAST_SEGMENT}' and progress < '${EDGE}') as before,
           exists (select from torture.batch where progress > '${EDGE}') as after`,
      );
      return before && after;
    },
    PATIENCE_MS,
    stop,
  );
}

/** Observed: messages in the log were written by transactions above the edge, and the relay's snapshots name such. */
async function seeLargeXids({ database, stop }: Stage): Promise<boolean> {
  return waitUntil(
    async () => {
      const { found } = await database.one<{ found: boolean }>(
        `select exists (select from tailrace.log_entry e join tailrace.outbox o on o.position = e.ids[1] where o.tx > 2^32)
           and exists (select from tailrace.relay_batch where split_part(checkpoint, ':', 1)::bigint > 2^32) as found`,
      );
      return found;
    },
    PATIENCE_MS,
    stop,
  );
}
