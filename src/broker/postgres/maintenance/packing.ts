import type pg from 'pg';
import { packRecords, sizeOf, type PackedRecord, type PackedSpan } from '../packed-entry.ts';

/** Positions of the outbox, from `low` to before `high`. */
export interface PositionRange {
  readonly low: string;
  readonly high: string;
}

export interface PackingOptions {
  /** Quoted. */
  readonly schema: string;
  /** Of the last batch with a checkpoint: what a relay that starts over reads in later entries is left as it is. */
  readonly checkpointSeq: string;
  /** Entries that name such positions are packed. */
  readonly range: PositionRange;
}

/** At most as many records, and about as many bytes before they are compressed, are packed together. */
export const PACK = { records: 1_000, bytes: 256_000 };
const ENTRIES_A_LOOK = 200;

interface EntryPlace {
  readonly partition: number;
  readonly base: string;
  readonly count: number;
}

/**
 * Packs what the log still needs of a range of the outbox: entries that name its rows are replaced by entries that hold them,
 * some at a time, each time in one transaction. So readers see the one or the other, and an interruption leaves a state to go
 * on from. The writer only ever adds entries behind these, so it is not held up. One at a time for a log. Answers how many
 * records were packed.
 *
 * Throws what Postgres throws, and where a row is missing that an entry names.
 */
export async function packRange(client: pg.ClientBase, options: PackingOptions): Promise<number> {
  let last: EntryPlace | undefined;
  let packed = 0;
  for (;;) {
    const found = await findEntries(client, options, last);
    if (found.length === 0) return packed;
    for (const group of neighbours(found, PACK.records)) await packGroup(client, options, group);
    packed += found.reduce((sum, { count }) => sum + count, 0);
    last = found.at(-1);
  }
}

/** Whether an entry names a row of the range that somebody may still read; after {@link packRange}, one of the newest. */
export async function isNamed(client: pg.ClientBase, { schema, range }: PackingOptions): Promise<boolean> {
  const { rowCount } = await client.query(
    `select from ${schema}.log_entry e where exists (select from unnest(e.ids) id where id >= $1 and id < $2)
      and (e.seq > (select coalesce(max(seq), 0) from ${schema}.relay_batch where checkpoint is not null)
        or e.base + e.count > (select start from ${schema}.log_partition p where p.id = e.partition)) limit 1`,
    [range.low, range.high],
  );
  return rowCount !== 0;
}

async function findEntries(
  client: pg.ClientBase,
  { schema, checkpointSeq, range }: PackingOptions,
  after: EntryPlace | undefined,
): Promise<EntryPlace[]> {
  const { rows } = await client.query<EntryPlace>(
    `select e.partition, e.base::text, e.count from ${schema}.log_entry e join ${schema}.log_partition p on p.id = e.partition
      where e.seq <= $3::bigint and e.base + e.count > p.start
        and exists (select from unnest(e.ids) id where id >= $1::bigint and id < $2::bigint)
        and (e.partition, e.base) > ($4::int, $5::bigint)
      order by e.partition, e.base limit ${ENTRIES_A_LOOK}`,
    [range.low, range.high, checkpointSeq, after?.partition ?? 0, after?.base ?? -1],
  );
  return rows;
}

/** Puts entries together that follow each other in a partition, until they have that many records. */
export function neighbours(entries: readonly EntryPlace[], records: number): EntryPlace[][] {
  const groups: EntryPlace[][] = [];
  let held = 0;
  for (const entry of entries) {
    const last = groups.at(-1)?.at(-1);
    const follows =
      last?.partition === entry.partition && BigInt(last.base) + BigInt(last.count) === BigInt(entry.base);
    if (follows && held < records) groups.at(-1)?.push(entry);
    else {
      groups.push([entry]);
      held = 0;
    }
    held += entry.count;
  }
  return groups;
}

/** Cuts a row of messages into stretches that are packed together: each has one message at least. */
export function stretches(
  sizes: readonly number[],
  most: { readonly records: number; readonly bytes: number },
): number[] {
  const counts: number[] = [];
  let [records, bytes] = [0, 0];
  for (const size of sizes) {
    if (records > 0 && (records === most.records || bytes + size > most.bytes)) {
      counts.push(records);
      [records, bytes] = [0, 0];
    }
    records += 1;
    bytes += size;
  }
  return records === 0 ? counts : [...counts, records];
}

/** A message of the outbox at its offset. */
export interface Named {
  readonly id: string;
  readonly offset: bigint;
  /** Of its entry, as a packed record has it. */
  readonly appendedAt: string;
}

async function packGroup(client: pg.ClientBase, options: PackingOptions, group: readonly EntryPlace[]): Promise<void> {
  const { schema } = options;
  await client.query('begin');
  try {
    const { named, seq } = await takeOut(client, options, group);
    const sizes = await readSizes(client, schema, named);
    let at = 0;
    for (const count of stretches(sizes, PACK)) {
      const records = await readRecords(client, schema, named.slice(at, at + count));
      const span = { base: records[0]?.offset ?? 0n, count: BigInt(count) };
      const appendedAt = records.at(-1)?.appendedAt ?? '0';
      await insertPacked(client, schema, { partition: group[0]?.partition ?? 0, seq, span, appendedAt }, records);
      at += count;
    }
    await client.query('commit');
  } catch (error) {
    await client.query('rollback').catch(() => undefined);
    throw error;
  }
}

async function takeOut(
  client: pg.ClientBase,
  { schema }: PackingOptions,
  group: readonly EntryPlace[],
): Promise<{ named: Named[]; seq: string }> {
  const { rows } = await client.query<{ base: string; seq: string; at: string; ids: string[] }>(
    `delete from ${schema}.log_entry where partition = $1 and base = any($2::bigint[]) and ids is not null
      returning base, seq, extract(epoch from appended_at)::text as at, ids`,
    [group[0]?.partition, group.map(({ base }) => base)],
  );
  if (rows.length !== group.length) throw new Error('Entries of the log were changed while they were to be packed.');
  rows.sort((a, b) => (BigInt(a.base) < BigInt(b.base) ? -1 : 1));
  const named = rows.flatMap(({ base, at, ids }) =>
    ids.map((id, n) => ({ id, offset: BigInt(base) + BigInt(n), appendedAt: at })),
  );
  return { named, seq: rows.at(-1)?.seq ?? '0' };
}

async function readSizes(client: pg.ClientBase, schema: string, named: readonly Named[]): Promise<number[]> {
  const { rows } = await client.query<{ position: string; size: number }>(
    `select position, coalesce(octet_length(payload::text), octet_length(payload_bytes)) + octet_length(headers::text)
        + coalesce(octet_length(key), 0) as size from ${schema}.outbox ${AMONG}`,
    among(named),
  );
  const sizes = new Map(rows.map(({ position, size }) => [position, size]));
  return named.map(({ id }) => {
    const size = sizes.get(id);
    if (size === undefined) throw new Error(`The outbox lacks position ${id}, which the log names.`);
    return size;
  });
}

interface OutboxRow extends Pick<PackedRecord, 'kind' | 'type' | 'key' | 'headers' | 'payload'> {
  readonly position: string;
  readonly message_id: string;
  readonly payload_bytes: Buffer | null;
  readonly occurred_at: string;
  readonly expires_at: string | null;
  readonly deliver_at: string | null;
}

/** The messages as they are packed. Throws where the outbox lacks one. */
export async function readRecords(
  client: pg.ClientBase,
  schema: string,
  named: readonly Named[],
): Promise<PackedRecord[]> {
  if (named.length === 0) return [];
  const { rows } = await client.query<OutboxRow>(
    `select position, message_id, kind, type, key, headers::text, payload::text, payload_bytes,
        extract(epoch from occurred_at)::text as occurred_at, extract(epoch from expires_at)::text as expires_at,
        extract(epoch from deliver_at)::text as deliver_at from ${schema}.outbox ${AMONG}`,
    among(named),
  );
  const byPosition = new Map(rows.map((row) => [row.position, row]));
  return named.map((one) => recordOf(one, byPosition.get(one.id)));
}

/** What a packed entry has beside its records. */
export interface PackedPlace {
  /** Its number in `log_partition`. */
  readonly partition: number;
  readonly seq: string;
  readonly span: PackedSpan;
  /** Of its last record, in seconds since 1970. */
  readonly appendedAt: string;
}

export async function insertPacked(
  client: pg.ClientBase,
  schema: string,
  { partition, seq, span, appendedAt }: PackedPlace,
  records: readonly PackedRecord[],
): Promise<void> {
  const bytes = records.reduce((sum, record) => sum + sizeOf(record), 0);
  await client.query(
    `insert into ${schema}.log_entry (partition, base, count, packed, bytes, seq, appended_at)
      values ($1, $2, $3, $4, $5, $6, to_timestamp($7::float8))`,
    [partition, span.base.toString(), span.count.toString(), packRecords(records, span), bytes, seq, appendedAt],
  );
}

function recordOf({ id, offset, appendedAt }: Named, row: OutboxRow | undefined): PackedRecord {
  if (row === undefined) throw new Error(`The outbox lacks position ${id}, which the log names.`);
  const { kind, type, key, headers, payload } = row;
  return {
    ...{ offset, position: BigInt(id), messageId: row.message_id, kind, type, key, headers, payload, appendedAt },
    payloadBytes: row.payload_bytes,
    occurredAt: row.occurred_at,
    expiresAt: row.expires_at,
    deliverAt: row.deliver_at,
  };
}

/** The bounds let the server leave out partitions of the outbox. */
export const AMONG = 'where position = any($1::bigint[]) and position between $2::bigint and $3::bigint';

/** The parameters of {@link AMONG}. */
export function among(named: readonly Pick<Named, 'id'>[]): unknown[] {
  const ids = named.map(({ id }) => Number(id));
  return [`{${ids.join(',')}}`, smallest(ids), largest(ids)];
}

function smallest(numbers: readonly number[]): number {
  return numbers.reduce((least, number) => Math.min(least, number), Infinity);
}

function largest(numbers: readonly number[]): number {
  return numbers.reduce((most, number) => Math.max(most, number), -Infinity);
}
