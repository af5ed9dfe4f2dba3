import type pg from 'pg';
import { offsetsAtSql } from '../offsets-at.ts';

/** What a topic keeps, as far as it sets a limit. */
interface LimitedTopic {
  readonly name: string;
  readonly retentionMs: number | null;
  readonly retentionBytes: number | null;
}

/** A measured stretch of a partition, from `base` to before `next`. */
export interface Segment {
  readonly base: bigint;
  readonly next: bigint;
  readonly bytes: number;
}

/** A segment grows up to this part of what its topic keeps: so exact is the removal by size. */
const SEGMENTS_WITHIN_LIMIT = 16;
/** Entries that are measured, or deleted, in one statement. */
const ENTRIES_A_STEP = 500;

/**
 * Moves the starts of partitions to where their topics' limits say, then deletes the entries that lie wholly below. The
 * start is what readers go by, so it may be interrupted anywhere. Answers how many were deleted. Throws what Postgres throws.
 *
 * @param schema quoted.
 * @param checkpointSeq of the last batch with a checkpoint: what a relay that starts over reads in later entries is kept.
 */
export async function applyRetention(client: pg.ClientBase, schema: string, checkpointSeq: string): Promise<number> {
  const { rows: topics } = await client.query<{ name: string; ms: string | null; bytes: string | null }>(
    `select name, retention_ms as ms, retention_bytes as bytes from ${schema}.log_topic
      where retention_ms is not null or retention_bytes is not null order by name`,
  );
  for (const { name, ms, bytes } of topics) {
    const topic = { name, retentionMs: numberOf(ms), retentionBytes: numberOf(bytes) };
    await expire(client, schema, topic);
    await outgrow(client, schema, topic);
  }
  return deleteEntries(client, schema, checkpointSeq);
}

async function expire(client: pg.ClientBase, schema: string, { name, retentionMs }: LimitedTopic): Promise<void> {
  if (retentionMs === null) return;
  const { rows } = await client.query<{ oldest: string }>(
    `select (clock_timestamp() - $1 * interval '1 millisecond')::text as oldest`,
    [retentionMs],
  );
  const starts = await client.query<(string | null)[]>({
    text: offsetsAtSql(schema),
    values: [name, rows[0]?.oldest],
    rowMode: 'array',
  });
  for (const [partition, start] of starts.rows) await moveStart(client, schema, name, Number(partition), start ?? '0');
}

async function outgrow(client: pg.ClientBase, schema: string, { name, retentionBytes }: LimitedTopic): Promise<void> {
  if (retentionBytes === null) return;
  const { rows } = await client.query<{ id: number; partition: number }>(
    `select id, partition from ${schema}.log_partition where topic = $1 order by partition`,
    [name],
  );
  for (const { id, partition } of rows) {
    await measure(client, schema, id, Math.ceil(retentionBytes / SEGMENTS_WITHIN_LIMIT));
    const start = startWithin(await readSegments(client, schema, id), retentionBytes);
    if (start !== undefined) await moveStart(client, schema, name, partition, start.toString());
  }
}

/**
 * Where a partition is to start so that at least `keepBytes` stay, and at most one segment more; `undefined`: where it does.
 *
 * @param segments those that are there, ascending.
 */
export function startWithin(segments: readonly Segment[], keepBytes: number): bigint | undefined {
  let left = segments.reduce((sum, { bytes }) => sum + bytes, 0);
  let start: bigint | undefined;
  for (const { next, bytes } of segments) {
    if (left - bytes < keepBytes) break;
    left -= bytes;
    start = next;
  }
  return start;
}

async function readSegments(client: pg.ClientBase, schema: string, id: number): Promise<Segment[]> {
  const { rows } = await client.query<{ base: string; next_base: string; bytes: string }>(
    `select base, next_base, bytes from ${schema}.log_segment where partition = $1 order by base`,
    [id],
  );
  return rows.map((row) => ({ base: BigInt(row.base), next: BigInt(row.next_base), bytes: Number(row.bytes) }));
}

/** Measures what came since the last time, step by step. */
async function measure(client: pg.ClientBase, schema: string, id: number, segmentBytes: number): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query(
      `with last as materialized (
          select base, next_base, bytes from ${schema}.log_segment where partition = $1 order by base desc limit 1
        ), entry as materialized (
          select base, base + count as next_base, ids, bytes, appended_at from ${schema}.log_entry where partition = $1
            and base >= coalesce((select next_base from last), (select start from ${schema}.log_partition where id = $1))
            order by base limit ${ENTRIES_A_STEP}
        ), named as materialized (
          select unnest(ids) as id from entry
        ), step as materialized (
          select min(base) as base, max(next_base) as next_base, min(appended_at) as first_at, max(appended_at) as last_at,
            coalesce(sum(bytes), 0) + coalesce((select sum(coalesce(octet_length(payload::text), octet_length(payload_bytes))
                + octet_length(headers::text) + coalesce(octet_length(key), 0))
              from ${schema}.outbox where position = any(array(select id from named))
                and position between (select min(id) from named) and (select max(id) from named)), 0) as bytes
          from entry having count(*) > 0
        ), grown as (
          update ${schema}.log_segment s set next_base = step.next_base, bytes = s.bytes + step.bytes, last_at = step.last_at
            from step, last where s.partition = $1 and s.base = last.base and last.bytes < $2 returning 1
        ), added as (
          insert into ${schema}.log_segment (partition, base, next_base, bytes, first_at, last_at)
            select $1, base, next_base, bytes, first_at, last_at from step
              where not exists (select from last where bytes < $2) returning 1
        )
        select from grown union all select from added`,
      [id, segmentBytes],
    );
    if (rowCount === 0) return;
  }
}

async function moveStart(
  client: pg.ClientBase,
  schema: string,
  topic: string,
  partition: number,
  start: string,
): Promise<void> {
  await client.query(
    `update ${schema}.log_partition set start = $3::bigint where topic = $1 and partition = $2 and start < $3::bigint`,
    [topic, partition, start],
  );
}

/** The last entry of a partition stays: it says where the partition ends. */
async function deleteEntries(client: pg.ClientBase, schema: string, checkpointSeq: string): Promise<number> {
  let deleted = 0;
  for (;;) {
    const { rowCount } = await client.query(
      `delete from ${schema}.log_entry d using ${schema}.log_partition p cross join lateral (
          select base from ${schema}.log_entry e where e.partition = p.id and e.base < p.start
            and e.base + e.count <= p.start and e.seq <= $1::bigint
            and exists (select from ${schema}.log_entry later where later.partition = p.id and later.base > e.base)
            order by base limit ${ENTRIES_A_STEP}
        ) gone where p.start > 0 and d.partition = p.id and d.base = gone.base`,
      [checkpointSeq],
    );
    if (rowCount === 0) break;
    deleted += rowCount ?? 0;
  }
  await client.query(
    `delete from ${schema}.log_segment s using ${schema}.log_partition p where p.id = s.partition and s.next_base <= p.start`,
  );
  return deleted;
}

function numberOf(text: string | null): number | null {
  return text === null ? null : Number(text);
}
