import type pg from 'pg';
import type { Cluster } from '../base/cluster.ts';

/** The system identifier as text. */
export const SYSTEM_IDENTIFIER_SQL = '(select system_identifier::text from pg_control_system())';

/**
 * The timeline; null on a hot standby. From the WAL that is being written: `pg_control_checkpoint()` names the former
 * timeline until the first checkpoint after a promotion.
 */
export const TIMELINE_SQL = `case when not pg_is_in_recovery()
  then ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int end`;

/** Selects one row for {@link clusterOf}. */
export const CLUSTER_SQL = `select ${SYSTEM_IDENTIFIER_SQL} as system_identifier, ${TIMELINE_SQL} as timeline`;

export interface ClusterRow {
  readonly system_identifier: string;
  readonly timeline: number | null;
}

/** What {@link CLUSTER_SQL} found; `undefined` on a hot standby, whose timeline is not its own. */
export function clusterOf(row: ClusterRow | undefined): Cluster | undefined {
  if (row === undefined || row.timeline === null) return undefined;
  return { systemIdentifier: row.system_identifier, timeline: row.timeline };
}

/** Asks a server; `undefined` on a hot standby. */
export async function readCluster(client: Pick<pg.ClientBase, 'query'>): Promise<Cluster | undefined> {
  const { rows } = await client.query<ClusterRow>(CLUSTER_SQL);
  return clusterOf(rows[0]);
}
