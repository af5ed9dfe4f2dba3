import pg from 'pg';
import { messageOf, TailraceError } from '../../base/errors.ts';
import { lsn, parseLsn, type Lsn } from '../../base/lsn.ts';
import { pause } from '../../base/signal.ts';
import { closeClient, CONNECT_TIMEOUT_MS } from '../../postgres/connection.ts';
import { Snapshot } from '../../postgres/snapshot.ts';
import { clientUrl } from '../../postgres/tls.ts';
import { readSlot, type SlotFacts } from '../preflight.ts';

const RECHECK_MS = 20;

/** Ends the walsender that still streams from a slot, and waits until the slot is free. The caller holds the lease. */
export async function freeSlot(
  client: pg.ClientBase,
  slot: string,
  signal: AbortSignal,
): Promise<SlotFacts | undefined> {
  for (;;) {
    const facts = await readSlot(client, slot);
    if (facts?.activePid === undefined || signal.aborted) return facts;
    await client.query('select pg_terminate_backend($1)', [facts.activePid]);
    await pause(RECHECK_MS, signal);
  }
}

/** Drops a slot, with whoever reads or creates it. The caller holds the lease, and the slot is ours. */
export async function dropSlot(client: pg.ClientBase, slot: string): Promise<void> {
  const ours = 'from pg_replication_slots where slot_name = $1';
  await client.query(`select pg_terminate_backend(active_pid, 5000) ${ours} and active_pid is not null`, [slot]);
  await client.query(`select pg_drop_replication_slot(slot_name) ${ours}`, [slot]);
}

/** A slot under creation. Creating one waits for every write transaction that is running in the cluster. */
export interface SlotCreation {
  /** Settles when the slot exists. */
  readonly done: Promise<CreatedSlot>;
  /** Gives up a creation that has not finished; ends the connection either way. May be called more than once. */
  close(): Promise<void>;
}

export interface CreatedSlot {
  /** The slot streams every commit that `snapshot` does not see, and no other. */
  readonly snapshot: Snapshot;
  readonly consistentPoint: Lsn;
}

export interface SlotCreationOptions {
  readonly connectionString: string;
  readonly slot: string;
  /** Standbys keep a copy of it. Needs Postgres 17. */
  readonly failover: boolean;
  /** Rejects if there is to be no slot. */
  readonly allowed: () => Promise<void>;
}

/** Starts to create a slot, anew if one of that name exists. `control` is a plain connection to the same database. */
export function createSlot(control: pg.Client, options: SlotCreationOptions): SlotCreation {
  const replication = new pg.Client({
    connectionString: clientUrl(options.connectionString),
    application_name: 'tailrace relay slot',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    replication: 'database',
  } as pg.ClientConfig);
  replication.on('error', () => undefined); // the pending query rejects as well
  const done = create(control, replication, options);
  done.catch(() => undefined); // whoever awaits `done` sees it; until then it must not count as unhandled
  let closed: Promise<void> | undefined;
  return { done, close: () => (closed ??= endReplicationSession(control, replication)) };
}

async function create(
  control: pg.Client,
  replication: pg.Client,
  { slot, failover, allowed }: SlotCreationOptions,
): Promise<CreatedSlot> {
  await allowed();
  await replication.connect();
  await dropSlot(control, slot);
  const options = failover ? `SNAPSHOT 'export', FAILOVER true` : `SNAPSHOT 'export'`;
  const { rows } = await replication.query<{ consistent_point: string; snapshot_name: string }>(
    `CREATE_REPLICATION_SLOT "${slot}" LOGICAL pgoutput (${options})`,
  );
  const row = rows[0];
  return {
    snapshot: await readExportedSnapshot(control, row?.snapshot_name ?? ''),
    consistentPoint: row === undefined ? lsn(0n) : parseLsn(row.consistent_point),
  };
}

/** Ends it on the server too: a session that waits for a lock does not notice that its client has gone. */
async function endReplicationSession(control: pg.Client, replication: pg.Client): Promise<void> {
  const { processID } = replication as pg.Client & { processID: number | null };
  if (processID !== null) {
    await control
      .query(`select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and backend_type = 'walsender'`, [
        processID,
      ])
      .catch(() => undefined);
  }
  await closeClient(replication);
}

/**
 * The exported snapshot as text. Statements that are sent together are one transaction, which ends with them, also where one
 * fails: other queries of this connection may be waiting behind them.
 */
async function readExportedSnapshot(control: pg.ClientBase, name: string): Promise<Snapshot> {
  try {
    const [, , result] = (await control.query(
      `set transaction isolation level repeatable read; set transaction snapshot ${pg.escapeLiteral(name)};
       select pg_current_snapshot()::text as snapshot`,
    )) as unknown as pg.QueryResult<{ snapshot: string }>[];
    return Snapshot.parse(result?.rows[0]?.snapshot ?? '');
  } catch (cause) {
    throw new TailraceError(
      'REPLICATION_FAILED',
      `The snapshot of the new replication slot could not be read (${messageOf(cause)}), as when the session that created the slot was ended. The slot is created anew.`,
      { cause, retryable: true },
    );
  }
}

/** Waits until everything that `snapshot` sees is visible to new snapshots too. */
export async function awaitVisible(client: pg.ClientBase, snapshot: Snapshot, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const result = await client.query<{ now: string }>('select pg_current_snapshot()::text as now');
    const now = Snapshot.parse(result.rows[0]?.now ?? '');
    if (now.xmax >= snapshot.xmax && !now.inProgress.some((xid) => snapshot.sees(xid))) return;
    await pause(RECHECK_MS, signal);
  }
}
