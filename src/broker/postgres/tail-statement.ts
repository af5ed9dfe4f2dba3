/** Entries of a position, and records of an entry, that are read at once; what has more is no tail. */
export const MOST_ENTRIES = 8;
const MOST_RECORDS = 64;
/** Of a message that is read here. */
const MOST_BYTES = 4_096;

/**
 * Reads what was appended where partitions ended, at a third of what the statement of any fetch costs: there, entries begin
 * where positions are, hold few records, and most of the statement's work is about what is not so. Parameters: the partitions'
 * numbers, the offsets at which they ended. Each record is a row, in order within its position; the columns are the first ones
 * of a {@link FetchRow}, and behind them where the record stands in its entry, from 1. An entry that is packed, has too many
 * records, or lies before what retention has left is a row without offset, a message that is large or cannot be seen yet a row
 * without message id: then all is to be asked for in the other way.
 *
 * Laterals with OFFSET 0 leave the planner no choice but to look each row up by index.
 */
export function tailSql(schema: string): string {
  return `select w.i, e.base + x.nth - 1 - w.start, null, o.message_id, o.kind, o.type, o.key, o.headers, o.payload,
      encode(o.payload_bytes, 'hex'), date_part('epoch', o.occurred_at) * 1000, null, null,
      date_part('epoch', o.expires_at) * 1000, date_part('epoch', o.deliver_at) * 1000, x.nth
    from unnest($1::int[], $2::bigint[]) with ordinality w (partition, start, i)
    cross join lateral (select base, count, ids from ${schema}.log_entry
      where partition = w.partition and base >= w.start order by base limit ${MOST_ENTRIES}) e
    cross join lateral (select start from ${schema}.log_partition where id = w.partition offset 0) p
    left join lateral unnest(case when e.count <= ${MOST_RECORDS} and p.start <= w.start then e.ids end)
      with ordinality x (id, nth) on true
    left join lateral (select * from ${schema}.outbox where position = x.id
      and coalesce(octet_length(payload::text), octet_length(payload_bytes)) <= ${MOST_BYTES} offset 0) o on true`;
}

/** The columns of a row, in order: as those of a {@link FetchRow}, and one more. */
export type TailRow = readonly [
  i: string,
  n: string | null,
  id: null,
  messageId: string | null,
  ...rest: readonly (string | null)[],
];

/** Whether a row is the first one of an entry. */
export function beginsEntry(row: TailRow): boolean {
  return row[15] === '1';
}
