import type { FetchPosition } from '../log.ts';
import { unpackRecords } from './packed-entry.ts';
import type { TextRow } from '../../postgres/round-trip.ts';

/**
 * Halves, in each partition, the range in which the answer lies, by the entry in its middle; entries are in the order of
 * `appended_at`. `low` is always the end of an entry before the time (or the start), `high` the base of one at it or later
 * (or the end). A packed entry has the time of its last record. Parameters: the topic, the time.
 */
export function offsetsAtSql(schema: string): string {
  const [entry, partition] = [`${schema}.log_entry`, `${schema}.log_partition`];
  return `with recursive range (partition, id, low, high) as (
      select p.partition, p.id,
        greatest(p.start, (select e.base from ${entry} e where e.partition = p.id order by e.base limit 1)),
        coalesce((select e.base + e.count from ${entry} e where e.partition = p.id order by e.base desc limit 1), 0)
      from ${partition} p where p.topic = $1
    union all
      select r.partition, r.id, case when e.appended_at < $2 then e.base + e.count else r.low end,
        case when e.appended_at < $2 then r.high else e.base end
      from range r
      cross join lateral (select base, count, appended_at from ${entry}
        where partition = r.id and base <= (r.low + r.high) / 2 order by base desc limit 1) e
      where r.low < r.high
    )
    select r.partition, greatest(r.low, r.high), e.base, e.count, encode(e.packed, 'base64')
      from range r left join ${entry} e on e.partition = r.id and e.base = r.high and e.packed is not null
      where r.low >= r.high order by r.partition`;
}

/** Reads a row of {@link offsetsAtSql}. Within a packed entry, the first record appended at the time or later is looked for. */
export function offsetAt(topic: string, time: Date, row: TextRow): FetchPosition {
  const [partition, offset, base, count, packed] = row;
  const place = { topic, partition: Number(partition), offset: BigInt(offset ?? 0) };
  if (packed == null) return place;
  const span = { base: BigInt(base ?? 0), count: BigInt(count ?? 0) };
  const records = unpackRecords(Buffer.from(packed, 'base64'), span);
  const found = records.find(
    (record) => record.offset >= place.offset && Number(record.appendedAt) * 1_000 >= time.getTime(),
  );
  return { ...place, offset: found?.offset ?? place.offset };
}
