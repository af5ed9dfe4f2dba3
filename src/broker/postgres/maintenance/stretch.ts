import type pg from 'pg';
import { isDeleteMarker, LONGEST_MARKER } from '../../delete-marker.ts';
import { sizeOf, unpackRecords, type PackedRecord } from '../packed-entry.ts';
import type { KeyedRecord } from './compaction-plan.ts';
import { among, AMONG, PACK, type Named } from './packing.ts';

/** A record of a stretch: whole where its entry is packed, else with its position in the outbox. */
export interface StretchRecord extends KeyedRecord {
  readonly size: number;
  readonly appendedAt: string;
  readonly whole: PackedRecord | Named;
}

export interface StretchEntry {
  readonly base: bigint;
  readonly count: bigint;
  readonly seq: string;
  readonly isPacked: boolean;
  /** In seconds since 1970. */
  readonly appendedAt: string;
}

/** Some entries of a partition that follow each other. */
export interface Stretch {
  readonly entries: readonly StretchEntry[];
  readonly records: readonly StretchRecord[];
  readonly base: bigint;
  /** The offset behind the last entry. */
  readonly end: bigint;
  /** The outbox position of a record behind the last entry that cannot be seen. */
  readonly missing: string | undefined;
}

/** Offsets of one partition; `partition` is its number in `log_partition`. */
export interface OffsetRange {
  readonly partition: number;
  readonly from: bigint;
  /** The first that is not in it. */
  readonly to: bigint;
}

/** Entries that are read at once: as many as are packed together, and so many at most. */
const ENTRIES_A_STRETCH = 200;
/** Far from where the number of offsets of an entry ends. */
const OFFSETS_A_STRETCH = 1_000_000_000;

interface EntryRow {
  readonly base: string;
  readonly count: number;
  readonly seq: string;
  readonly at: string;
  readonly ids: string[] | null;
  readonly packed: Buffer | null;
}

/**
 * Reads the first entries that lie in a range, whole even where they begin before it or go on behind it; `undefined` if there
 * are none. Holds about as much in memory as is packed together.
 */
export async function readStretch(
  client: pg.ClientBase,
  schema: string,
  { partition, from, to }: OffsetRange,
): Promise<Stretch | undefined> {
  const { rows } = await client.query<EntryRow>(
    `select base, count, seq, extract(epoch from appended_at)::text as at, ids, packed
      from (select *, row_number() over w as nth, sum(coalesce(bytes, 0)) over w as total_bytes,
          sum(count) filter (where ids is not null) over w as named, sum(count) over w as span
        from (select * from ${schema}.log_entry where partition = $1 and base < $3::bigint and base + count > $2::bigint
            and base >= coalesce((select b.base from ${schema}.log_entry b
              where b.partition = $1 and b.base <= $2::bigint order by b.base desc limit 1), 0)
            order by base limit ${ENTRIES_A_STRETCH}) e
        window w as (order by base)) e
      where nth = 1 or (total_bytes <= ${PACK.bytes} and coalesce(named, 0) <= ${PACK.records} and span <= ${OFFSETS_A_STRETCH})
      order by base`,
    [partition, from.toString(), to.toString()],
  );
  if (rows.length === 0) return undefined;
  return stretchOf(rows, from, await readNamed(client, schema, rows));
}

function stretchOf(rows: readonly EntryRow[], from: bigint, named: ReadonlyMap<string, NamedRow>): Stretch {
  const entries: StretchEntry[] = [];
  const records: StretchRecord[] = [];
  let missing: string | undefined;
  for (const row of rows) {
    missing = row.ids?.find((id) => !named.has(id));
    if (missing !== undefined) break;
    const entry = entryOf(row);
    entries.push(entry);
    records.push(...(row.packed === null ? namedRecords(row, entry, named) : packedRecords(row.packed, entry)));
  }
  const [first, last] = [entries[0], entries.at(-1)];
  const end = last === undefined ? from : last.base + last.count;
  return { entries, records, base: first?.base ?? from, end, missing };
}

function entryOf({ base, count, seq, at, packed }: EntryRow): StretchEntry {
  return { base: BigInt(base), count: BigInt(count), seq, isPacked: packed !== null, appendedAt: at };
}

interface NamedRow {
  readonly position: string;
  readonly key: string | null;
  readonly is_marker: boolean | null;
  readonly size: number;
}

/** What the outbox says of the records that entries name. Sizes are known without fetching what is large. */
async function readNamed(
  client: pg.ClientBase,
  schema: string,
  entries: readonly EntryRow[],
): Promise<Map<string, NamedRow>> {
  const ids = entries.flatMap((entry) => entry.ids?.map((id) => ({ id })) ?? []);
  if (ids.length === 0) return new Map();
  const { rows } = await client.query<NamedRow>(
    `select position, key,
        case when octet_length(payload::text) <= ${LONGEST_MARKER} then btrim(payload::text, E' \\t\\r\\n') = 'null' end as is_marker,
        coalesce(octet_length(payload::text), octet_length(payload_bytes)) + octet_length(headers::text)
          + coalesce(octet_length(key), 0) as size from ${schema}.outbox ${AMONG}`,
    among(ids),
  );
  return new Map(rows.map((row) => [row.position, row]));
}

function namedRecords(
  { ids }: EntryRow,
  { base, appendedAt }: StretchEntry,
  named: ReadonlyMap<string, NamedRow>,
): StretchRecord[] {
  return (ids ?? []).map((id, n) => {
    const row = named.get(id);
    const offset = base + BigInt(n);
    return {
      offset,
      key: row?.key ?? null,
      isMarker: row?.is_marker ?? false,
      size: row?.size ?? 0,
      appendedAt,
      whole: { id, offset, appendedAt },
    };
  });
}

function packedRecords(packed: Buffer, span: StretchEntry): StretchRecord[] {
  return unpackRecords(packed, span).map((record) => {
    const { offset, key, payload, appendedAt } = record;
    return { offset, key, isMarker: isDeleteMarker(payload), size: sizeOf(record), appendedAt, whole: record };
  });
}
