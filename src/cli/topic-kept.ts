import type pg from 'pg';
import { quoteSchema } from '../postgres/schema-name.ts';
import { showBytes, showDuration } from './quantities.ts';

/** What a topic keeps; null: without a limit. */
export interface Kept {
  readonly retentionMs: number | null;
  readonly retentionBytes: number | null;
  readonly compact: boolean;
  readonly minCompactionLagMs: number;
  readonly deleteRetentionMs: number;
}

/** `undefined` where there is no such topic. */
export async function readKept(client: pg.Client, schema: string, topic: string): Promise<Kept | undefined> {
  const { rows } = await client.query<Kept>(
    `select retention_ms::float8 as "retentionMs", retention_bytes::float8 as "retentionBytes", compact,
        compaction_lag_ms::float8 as "minCompactionLagMs", delete_retention_ms::float8 as "deleteRetentionMs"
      from ${quoteSchema(schema)}.log_topic where name = $1`,
    [topic],
  );
  return rows[0];
}

/** For people. */
export function showKept({ retentionMs, retentionBytes, compact, minCompactionLagMs }: Kept): string {
  const limits = [
    ...(retentionMs === null ? [] : [`for ${showDuration(retentionMs)}`]),
    ...(retentionBytes === null ? [] : [`up to ${showBytes(retentionBytes)} in each partition`]),
  ];
  const kept = `its records ${limits.length === 0 ? 'for ever' : limits.join(' and ')}`;
  return compact
    ? `${kept}, once they are older than ${showDuration(minCompactionLagMs)} only the last of each key`
    : kept;
}
