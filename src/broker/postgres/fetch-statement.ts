/** In place of the start of a partition that is not in the log any more: its topic was deleted. */
export const NO_PARTITION = 9223372036854775807n;

/**
 * Reads records of many partitions in one round trip. Parameters: the partitions' numbers, the offsets to begin at, the
 * most records, the most bytes, the most records of each position. The `n`-th record of the `i`-th position (from 0 and from 1) is a row. Rows come, and
 * budgets are spent, by `n`, then `i`: so every position gets as much as any other that has as much, and what is cut off are
 * the last records of each.
 *
 * A packed entry is one row, with its first wanted offset as `n`; its bytes count as a whole. A row without `message_id` and
 * `packed` names an outbox row that this snapshot does not see. A row without `id` and `packed` says that the position lies
 * beyond the end of its partition, by `n`, or before its start, by `-n`: this would be {@link NO_PARTITION} where the partition
 * is gone.
 *
 * `id` is there only without a `message_id`. The last column is how many offsets there are in the partition from the position on.
 *
 * - `share`: how many records of each position are enough to fill the most records, since short ones leave room for
 *   long ones. Of positions in ascending order of what they have, it is the largest (room left) / (positions left).
 * - The outbox is read by `= any(…)` and `between`: the first finds rows by index, the second lets the server
 *   leave out partitions of the outbox when it runs.
 * - OFFSET 0 keeps the entries of a position in a subquery of their own, so that both bounds are looked up in the index.
 * - FULL JOIN where LEFT JOIN would do: it can only be carried out by hashing or merging, so a wrong estimate cannot make it a
 *   loop over both sides.
 * - Sizes are of the values as they were written, which the server knows without fetching or unpacking them.
 */
export function fetchSql(schema: string): string {
  return `with wanted as materialized (
      select w.i, w.partition, w.start, coalesce((select e.base + e.count from ${schema}.log_entry e
        where e.partition = w.partition order by e.base desc limit 1), 0) as ending,
        coalesce((select p.start from ${schema}.log_partition p where p.id = w.partition), ${NO_PARTITION}) as beginning
      from unnest($1::int[], $2::bigint[]) with ordinality w (partition, start, i)
    ), share as materialized (
      select least($5::int, greatest(1, max(($3::int - taken) / others)))::bigint as n
      from (select (coalesce(sum(available) over (order by available, i
            rows between unbounded preceding and 1 preceding), 0))::bigint as taken,
          count(*) over () + 1 - row_number() over (order by available, i) as others
        from (select i, greatest(ending - start, 0) as available from wanted) a) b
    ), entry as materialized (
      select w.i, w.start, w.ending, w.start + share.n as till, e.*
        from wanted w
        cross join share
        cross join lateral (select e.base, e.count, e.ids, e.packed, e.bytes
          from ${schema}.log_entry e where e.partition = w.partition
          and e.base >= coalesce((select b.base from ${schema}.log_entry b
            where b.partition = w.partition and b.base <= w.start order by b.base desc limit 1), 0)
          and e.base < w.start + share.n offset 0) e
        where w.start >= w.beginning
    ), named as materialized (
      (select e.i, greatest(e.start, e.base) + x.nth - 1 - e.start as n, x.id,
          null::bytea as packed, null::int as bytes, null::bigint as base, null::int as count,
          e.ending - e.start as behind
        from entry e
        cross join lateral unnest(e.ids[greatest(e.start - e.base, 0) + 1 : least(e.count, e.till - e.base)])
          with ordinality x (id, nth)
        order by n, e.i limit $3)
      union all
      select i, greatest(base - start, 0), null, packed, bytes::int, base, count, ending - start from entry where packed is not null
      union all
      select i, start - ending, null, null, null, null, null, null from wanted where start > ending
      union all
      select i, start - beginning, null, null, null, null, null, null from wanted where start < beginning
    ), found as (
      select named.i, named.n, named.id, named.packed, named.base, named.count, named.behind, o.*,
        coalesce(o.size, named.bytes) as weight,
        sum(coalesce(o.size, named.bytes)) over (order by named.n, named.i rows unbounded preceding) as total
      from named full join (
        select position, message_id, kind, type, key, headers, payload, payload_bytes, occurred_at, expires_at, deliver_at,
          coalesce(octet_length(payload::text), octet_length(payload_bytes)) + octet_length(headers::text)
            + coalesce(octet_length(key), 0) as size
        from ${schema}.outbox
        where position = any(array(select id from named))
          and position between (select min(id) from named) and (select max(id) from named)
      ) o on o.position = named.id
    )
    select i, n, case when message_id is null then id end, message_id, kind, type, key, headers, payload, encode(payload_bytes, 'hex'),
      date_part('epoch', occurred_at) * 1000,
      case when weight is null then pg_snapshot_xmin(pg_current_snapshot()) end,
      case when weight is null then pg_snapshot_xmax(pg_current_snapshot()) end,
      date_part('epoch', expires_at) * 1000, date_part('epoch', deliver_at) * 1000,
      base, count, encode(packed, 'base64'), behind
    from found where weight is null or total <= $4::bigint or total = weight order by n, i`;
}

/** The columns of a row, in order. */
export type FetchRow = readonly [
  i: string,
  n: string,
  id: string | null,
  messageId: string | null,
  kind: string,
  type: string,
  key: string | null,
  headers: string,
  payload: string | null,
  payloadHex: string | null,
  occurredAtMs: string,
  snapshotXmin: string | null,
  snapshotXmax: string | null,
  expiresAtMs: string | null,
  deliverAtMs: string | null,
  packedBase: string | null,
  packedCount: string | null,
  packedBase64: string | null,
  behind: string | null,
];
