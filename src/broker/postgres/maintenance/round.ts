import type pg from 'pg';
import { TailraceError } from '../../../base/errors.ts';
import type { Logger } from '../../../base/logger.ts';
import { CLUSTER_SQL, clusterOf, type ClusterRow } from '../../../postgres/cluster.ts';
import { quoteSchema } from '../../../postgres/schema-name.ts';
import { assertSameCluster, LEASE_NAME } from '../lease.ts';
import { compactTopics, type CompactionBounds } from './compaction.ts';
import { leaveOutbox, type LeavingResult } from './outbox-partitions.ts';
import { applyRetention } from './retention.ts';

/** What a round of maintenance works on. */
export interface RoundOptions {
  readonly schema: string;
  /** Names this process to operators. */
  readonly holder: string;
  /** How long a partition of the outbox stays once it was written full, in milliseconds. */
  readonly keepOutboxMs: number;
  /** How long to wait for who uses the outbox, in milliseconds. @defaultValue 15_000 */
  readonly waitMs?: number;
  /** How much compaction does in a round. @defaultValue a million records, 100,000 keys */
  readonly compaction?: CompactionBounds;
  readonly logger: Logger;
}

/** What a round did, and what it left. */
export interface RoundReport extends LeavingResult {
  /** Entries that retention deleted. */
  readonly deletedEntries: number;
  /** Records that were removed from compacted topics. */
  readonly compactedRecords: number;
}

/** What a round did; `busy`: somebody else is at it. */
export type RoundResult = RoundReport | 'busy';

/**
 * Looks after the log once: moves the starts of partitions to where retention says, lets partitions of the outbox leave
 * whose time is over, and compacts topics. Each step is a transaction of its own, and the next round goes on from whatever
 * state it finds, so it may be interrupted anywhere. One round at a time in a schema.
 *
 * Throws what Postgres throws.
 *
 * @throws TailraceError `WRONG_CLUSTER`, `HOT_STANDBY`: what the relay has stored is of another cluster; nothing is removed.
 */
export async function maintain(client: pg.ClientBase, options: RoundOptions): Promise<RoundResult> {
  const lock = ['tailrace_maintenance', options.schema];
  const { rows } = await client.query<{ locked: boolean }>(
    'select pg_try_advisory_lock(hashtext($1), hashtext($2)) as locked',
    lock,
  );
  if (rows[0]?.locked !== true) return 'busy';
  try {
    return await round(client, options);
  } finally {
    await client.query('select pg_advisory_unlock(hashtext($1), hashtext($2))', lock).catch(() => undefined);
  }
}

async function round(
  client: pg.ClientBase,
  { schema: name, holder, keepOutboxMs: keepMs, waitMs, compaction: bounds, logger }: RoundOptions,
): Promise<RoundReport> {
  const schema = quoteSchema(name);
  await assertWrittenHere(client, schema);
  const checkpointSeq = await readCheckpointSeq(client, schema);
  const deletedEntries = await applyRetention(client, schema, checkpointSeq);
  const result = await leaveOutbox(client, { schema, checkpointSeq, keepMs, waitMs, logger });
  await client.query(
    `insert into ${schema}.log_maintenance as m (name, ran_at, holder, is_owner, waiting, reason)
        values ($1, clock_timestamp(), $2, $3, $4, $5)
      on conflict (name) do update set ran_at = excluded.ran_at, holder = excluded.holder, is_owner = excluded.is_owner,
        waiting = excluded.waiting, reason = excluded.reason`,
    [LEASE_NAME, holder, result.isOwner, result.waiting, result.reason ?? null],
  );
  const compactedRecords = await compactTopics(client, { schema, checkpointSeq, bounds, logger });
  return { ...result, deletedEntries, compactedRecords };
}

/** By the transactions of another cluster every message would seem to be in the log. */
async function assertWrittenHere(client: pg.ClientBase, quotedSchema: string): Promise<void> {
  const { rows } = await client.query<ClusterRow & { written_identifier: string | null; written_timeline: number }>(
    `select here.*, l.system_identifier as written_identifier, l.timeline as written_timeline
      from (${CLUSTER_SQL}) here left join ${quotedSchema}.relay_lease l on l.name = $1`,
    [LEASE_NAME],
  );
  const [row] = rows;
  const written = row?.written_identifier;
  const last = written == null ? undefined : { systemIdentifier: written, timeline: row?.written_timeline ?? 0 };
  assertSameCluster({ cluster: clusterOf(row), row: last }, quotedSchema);
}

/** The last batch with a checkpoint, 0 if there is none. Of later entries a relay that starts over reads what they name. */
async function readCheckpointSeq(client: pg.ClientBase, quotedSchema: string): Promise<string> {
  const { rows } = await client.query<{ seq: string; xmax: string; here: string }>(
    `select seq, pg_snapshot_xmax(split_part(checkpoint, ' ', 1)::pg_snapshot)::text as xmax,
        pg_snapshot_xmax(pg_current_snapshot())::text as here
      from ${quotedSchema}.relay_batch where name = $1 and checkpoint is not null order by seq desc limit 1`,
    [LEASE_NAME],
  );
  const [row] = rows;
  if (row === undefined) return '0';
  if (BigInt(row.xmax) <= BigInt(row.here)) return row.seq;
  throw new TailraceError(
    'WRONG_CLUSTER',
    `The relay's checkpoint is of transaction ${row.xmax}; this server has come to ${row.here}. It was restored from another server's dump. Nothing is removed: start the relay, and do what it says.`,
  );
}
