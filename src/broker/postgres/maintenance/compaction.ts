import type pg from 'pg';
import type { Logger } from '../../../base/logger.ts';
import { offsetsAtSql } from '../offsets-at.ts';
import type { PackedRecord } from '../packed-entry.ts';
import { coverSpan, isPassDue, isWorthRewriting, LastOffsets, stays, type CompactionState } from './compaction-plan.ts';
import { insertPacked, PACK, readRecords, stretches } from './packing.ts';
import { readStretch, type Stretch, type StretchRecord } from './stretch.ts';

/** How much compaction does in a round, and how many keys it holds in memory. */
export interface CompactionBounds {
  /** Records that are read in a round, and as many again of which a pass collects the keys. */
  readonly records: number;
  /** Keys that a pass collects, a stretch more at most. */
  readonly keys: number;
}

export interface CompactionOptions {
  /** Quoted. */
  readonly schema: string;
  /** Of the last batch with a checkpoint: what a relay that starts over reads in later entries is left as it is. */
  readonly checkpointSeq: string;
  /** @defaultValue a million records, 100,000 keys */
  readonly bounds?: CompactionBounds | undefined;
  readonly logger: Logger;
}

const BOUNDS: CompactionBounds = { records: 1_000_000, keys: 100_000 };

/** A pass that was begun. It goes on where it was, whoever makes the next round. */
interface Pass {
  readonly to: bigint;
  readonly at: bigint;
  readonly markersBelow: bigint;
}

/** A partition of a compacted topic. */
interface Target {
  /** Its number in `log_partition`. */
  readonly partition: number;
  readonly name: string;
  readonly state: CompactionState;
  /** Delete markers below it are removed by a pass that begins now. */
  readonly markersBelow: bigint;
  /** The last offset of the partition. */
  readonly last: bigint;
  readonly pass: Pass | undefined;
  readonly ranAtMs: number;
}

/**
 * Removes superseded records and old delete markers from compacted topics; answers how many. A pass over a partition collects the
 * last offset of each key in what was never compacted, as many keys as fit, then writes anew what lies below and has
 * records to remove, some entries at a time, each time in one transaction that also says how far the pass has come. So
 * readers see the one or the other, and an interruption leaves a state to go on from. Every entry keeps its offsets, with
 * and without records. The writer only ever adds entries behind these. One at a time for a log.
 *
 * Throws what Postgres throws, and where a row is missing that an old entry names.
 */
export async function compactTopics(client: pg.ClientBase, options: CompactionOptions): Promise<number> {
  const bounds = options.bounds ?? BOUNDS;
  let removed = 0;
  let left = bounds.records;
  for (const target of await readTargets(client, options)) {
    if (left <= 0) break;
    const compaction = new PartitionCompaction(client, options, target, bounds);
    const done = await compaction.run(left);
    removed += done.removed;
    left -= done.read;
  }
  return removed;
}

interface Done {
  readonly removed: number;
  readonly read: number;
}

/** The work on one partition in one round. */
class PartitionCompaction {
  readonly #client: pg.ClientBase;
  readonly #options: CompactionOptions;
  readonly #target: Target;
  readonly #bounds: CompactionBounds;
  /** What the pass has left behind it since it was last written down. */
  #kept = 0;
  #markers = 0;

  constructor(client: pg.ClientBase, options: CompactionOptions, target: Target, bounds: CompactionBounds) {
    this.#client = client;
    this.#options = options;
    this.#target = target;
    this.#bounds = bounds;
  }

  /** Takes the pass as far as `most` records, or to its end. */
  async run(most: number): Promise<Done> {
    const { pass: begun, state } = this.#target;
    if (begun === undefined && !isPassDue(state)) return { removed: 0, read: 0 };
    const last = new LastOffsets();
    const collected = await this.#collect(last, begun?.to);
    const pass = begun ?? (await this.#begin(collected));
    if (pass === undefined) return { removed: 0, read: 0 };
    return this.#advance(pass, last, most);
  }

  /** Reads the keys behind the clean part, up to `to` or as many as fit; answers up to where. */
  async #collect(last: LastOffsets, to: bigint | undefined): Promise<bigint> {
    const { partition, state } = this.#target;
    let at = state.cleanTo;
    const end = to ?? state.limit;
    const { keys, records } = this.#bounds;
    for (let read = 0; at < end && (to !== undefined || (read < records && last.size < keys));) {
      const stretch = await readStretch(this.#client, this.#options.schema, { partition, from: at, to: end });
      if (stretch === undefined) return end;
      for (const record of stretch.records) if (record.offset < end) last.add(record);
      if (stretch.missing !== undefined && to !== undefined) throw missingRow(stretch.missing);
      read += stretch.records.length;
      at = stretch.end > end ? end : stretch.end;
      if (stretch.missing !== undefined) break;
    }
    return at;
  }

  /** `undefined`: there is nothing to do after all. */
  async #begin(to: bigint): Promise<Pass | undefined> {
    const { partition, state, markersBelow } = this.#target;
    if (to <= state.cleanTo && !state.hasDueMarkers) return undefined;
    const pass = { to: to > state.cleanTo ? to : state.cleanTo, at: state.start, markersBelow };
    await this.#client.query(
      `insert into ${this.#options.schema}.log_compaction as c (partition, pass_to, pass_at, pass_marker_to)
          values ($1, $2, $3, $4)
        on conflict (partition) do update set pass_to = excluded.pass_to, pass_at = excluded.pass_at,
          pass_marker_to = excluded.pass_marker_to, pass_kept = 0, pass_markers = 0, ran_at = clock_timestamp()`,
      [partition, pass.to.toString(), pass.at.toString(), markersBelow.toString()],
    );
    return pass;
  }

  async #advance({ to, at: from, markersBelow }: Pass, last: LastOffsets, most: number): Promise<Done> {
    const { partition, name } = this.#target;
    let [at, read, removed] = [from, 0, 0];
    while (at < to && read < most) {
      const stretch = await readStretch(this.#client, this.#options.schema, { partition, from: at, to });
      if (stretch === undefined) break;
      if (stretch.missing !== undefined && stretch.entries.length === 0) throw missingRow(stretch.missing);
      const left = stretch.records.filter((record) => stays(record, last, markersBelow));
      this.#count(left, at, to);
      at = stretch.end > to ? to : stretch.end;
      await this.#rewrite(stretch, left, at);
      read += Math.max(stretch.records.length, 1);
      removed += stretch.records.length - left.length;
    }
    if (at >= to || read < most) await this.#finish();
    else await this.#note(at);
    if (removed > 0) this.#options.logger.info({ partition: name, removed }, 'superseded records were removed');
    return { removed, read };
  }

  #count(left: readonly StretchRecord[], from: bigint, to: bigint): void {
    const counted = left.filter(({ offset }) => offset >= from && offset < to);
    this.#kept += counted.length;
    this.#markers += counted.filter(
      ({ key, isMarker, offset }) => key !== null && isMarker && offset < this.#target.last,
    ).length;
  }

  async #rewrite(stretch: Stretch, left: readonly StretchRecord[], at: bigint): Promise<void> {
    const counts = stretches(
      left.map(({ size }) => size),
      PACK,
    );
    if (!isWorthRewriting(stretch.entries, stretch.records.length - left.length, counts.length)) return;
    await this.#client.query('begin');
    try {
      await this.#replace(stretch, left, counts);
      await this.#measure(stretch, left);
      await this.#note(at);
      await this.#client.query('commit');
    } catch (error) {
      await this.#client.query('rollback').catch(() => undefined);
      throw error;
    }
  }

  async #replace(
    { entries, base, end }: Stretch,
    left: readonly StretchRecord[],
    counts: readonly number[],
  ): Promise<void> {
    const { partition } = this.#target;
    const { rowCount } = await this.#client.query(
      `delete from ${this.#options.schema}.log_entry where partition = $1 and base = any($2::bigint[])`,
      [partition, entries.map((entry) => entry.base.toString())],
    );
    if (rowCount !== entries.length) throw new Error('Entries of the log were changed while they were compacted.');
    const offsets = left.map(({ offset }) => offset);
    let at = 0;
    for (const group of coverSpan({ base, end }, offsets, counts)) {
      const records = await this.#wholes(left.slice(at, at + group.records));
      at += group.records;
      const { seq = '0', appendedAt = '0' } = entries.at(-1) ?? {};
      const place = { partition, seq, span: group, appendedAt: records.at(-1)?.appendedAt ?? appendedAt };
      await insertPacked(this.#client, this.#options.schema, place, records);
    }
  }

  async #wholes(left: readonly StretchRecord[]): Promise<PackedRecord[]> {
    const named = left.flatMap(({ whole }) => ('id' in whole ? [whole] : []));
    const read = await readRecords(this.#client, this.#options.schema, named);
    const byOffset = new Map(read.map((record) => [record.offset, record]));
    return left.flatMap(({ whole, offset }) => ('id' in whole ? (byOffset.get(offset) ?? []) : [whole]));
  }

  /** What was measured for a topic that keeps so many bytes, without what leaves. */
  async #measure({ records, base, end }: Stretch, left: readonly StretchRecord[]): Promise<void> {
    const staying = new Set(left.map(({ offset }) => offset));
    const gone = records.filter(({ offset }) => !staying.has(offset));
    if (gone.length === 0) return;
    await this.#client.query(
      `update ${this.#options.schema}.log_segment s set bytes = greatest(0, s.bytes - (
          select coalesce(sum(r.size), 0) from unnest($4::bigint[], $5::bigint[]) r (at, size)
            where r.at >= s.base and r.at < s.next_base))
        where s.partition = $1 and s.base < $3::bigint and s.next_base > $2::bigint`,
      [
        this.#target.partition,
        ...[base.toString(), end.toString()],
        ...[gone.map(({ offset }) => offset.toString()), gone.map(({ size }) => size)],
      ],
    );
  }

  /** Writes down how far the pass has come. */
  async #note(at: bigint): Promise<void> {
    await this.#client.query(
      `update ${this.#options.schema}.log_compaction set pass_at = $2, pass_kept = pass_kept + $3,
          pass_markers = pass_markers + $4, ran_at = clock_timestamp() where partition = $1`,
      [this.#target.partition, at.toString(), this.#kept, this.#markers],
    );
    [this.#kept, this.#markers] = [0, 0];
  }

  /** Delete markers in what is clean now count their time from now on, unless earlier ones are waiting. */
  async #finish(): Promise<void> {
    await this.#client.query(
      `update ${this.#options.schema}.log_compaction set clean_to = pass_to, kept = pass_kept + $2, markers = pass_markers + $3,
          marker_to = case when pass_marker_to > 0 or marker_since is null then pass_to else marker_to end,
          marker_since = case when pass_marker_to > 0 or marker_since is null then clock_timestamp() else marker_since end,
          pass_to = null, ran_at = clock_timestamp()
        where partition = $1`,
      [this.#target.partition, this.#kept, this.#markers],
    );
  }
}

function missingRow(id: string): Error {
  return new Error(`The outbox lacks position ${id}, which the log names.`);
}

/** The partitions of compacted topics; those that have waited longest come first. */
async function readTargets(client: pg.ClientBase, options: CompactionOptions): Promise<Target[]> {
  const { rows } = await client.query<{ name: string; young: string }>(
    `select name, (clock_timestamp() - compaction_lag_ms * interval '1 millisecond')::text as young
      from ${options.schema}.log_topic where compact order by name`,
  );
  const targets: Target[] = [];
  for (const topic of rows) targets.push(...(await readTopic(client, options, topic)));
  return targets.sort((a, b) => a.ranAtMs - b.ranAtMs);
}

interface TargetRow {
  readonly id: number;
  readonly partition: number;
  readonly start: string;
  readonly clean_to: string;
  readonly max_to: string;
  readonly kept: string;
  readonly has_due_markers: boolean;
  readonly has_waited: boolean | null;
  readonly markers_below: string;
  readonly last: string;
  readonly pass_to: string | null;
  readonly pass_at: string;
  readonly pass_marker_to: string;
  readonly ran_at_ms: number;
}

/**
 * Entries with younger records stay as they are, and so do those behind the last checkpoint. The last record of a partition
 * stays even if it is a delete marker, so that who reads on from offset to offset comes to the end. In a partition that was
 * added later, delete markers stay: one that was there before may hold older records of their keys.
 */
async function readTopic(
  client: pg.ClientBase,
  { schema, checkpointSeq }: CompactionOptions,
  { name, young }: { readonly name: string; readonly young: string },
): Promise<Target[]> {
  const bounds = await client.query<[string, string]>({
    text: offsetsAtSql(schema),
    values: [name, young],
    rowMode: 'array',
  });
  const { rows } = await client.query<TargetRow>(
    `select p.id, p.partition, p.start, coalesce(c.clean_to, 0) as clean_to, l.max_to, coalesce(c.kept, 0) as kept,
        m.has_due_markers, least(case when m.has_due_markers then c.marker_to end, z.last) as markers_below, z.last,
        (select e.appended_at < clock_timestamp() - (t.compaction_lag_ms * interval '1 millisecond' + interval '1 day')
          from ${schema}.log_entry e where e.partition = p.id and e.base >= coalesce(c.clean_to, 0) order by e.base limit 1) as has_waited,
        c.pass_to, coalesce(c.pass_at, 0) as pass_at, coalesce(c.pass_marker_to, 0) as pass_marker_to,
        coalesce(extract(epoch from c.ran_at) * 1000, 0)::float8 as ran_at_ms
      from ${schema}.log_partition p join ${schema}.log_topic t on t.name = p.topic
      join unnest($2::int[], $3::bigint[]) w (partition, young) on w.partition = p.partition
      left join ${schema}.log_compaction c on c.partition = p.id
      cross join lateral (select coalesce((select e.base + e.count - 1 from ${schema}.log_entry e
          where e.partition = p.id order by e.base desc limit 1), 0) as last) z
      cross join lateral (select coalesce((select e.base + e.count from ${schema}.log_entry e
          where e.partition = p.id and e.seq <= $4::bigint and e.base < w.young
          order by e.base desc limit 1), 0) as max_to) l
      cross join lateral (select coalesce(c.markers > 0
          and c.marker_since <= clock_timestamp() - t.delete_retention_ms * interval '1 millisecond'
          and p.partition < (select coalesce(min(g.partitions_before), t.partitions)
            from ${schema}.log_topic_growth g where g.topic = p.topic), false) as has_due_markers) m
      where p.topic = $1 order by p.partition`,
    [name, bounds.rows.map(([partition]) => partition), bounds.rows.map(([, offset]) => offset), checkpointSeq],
  );
  return rows.map((row) => targetOf(name, row));
}

function targetOf(topic: string, row: TargetRow): Target {
  const { id, partition, pass_to: passTo } = row;
  return {
    partition: id,
    name: `${topic}/${partition}`,
    state: {
      start: BigInt(row.start),
      limit: BigInt(row.max_to),
      cleanTo: BigInt(row.clean_to),
      kept: Number(row.kept),
      hasDueMarkers: row.has_due_markers,
      hasWaited: row.has_waited ?? false,
    },
    markersBelow: row.has_due_markers ? BigInt(row.markers_below) : 0n,
    last: BigInt(row.last),
    pass:
      passTo === null
        ? undefined
        : { to: BigInt(passTo), at: BigInt(row.pass_at), markersBelow: BigInt(row.pass_marker_to) },
    ranAtMs: row.ran_at_ms,
  };
}
