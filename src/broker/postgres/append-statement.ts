import type pg from 'pg';
import { LEASE_NAME } from './lease.ts';

/** The messages of one partition in a batch; `partition` is its number in `log_partition`. */
export interface PartitionIdsToAppend {
  readonly partition: number;
  readonly ids: readonly number[];
}

/** One attempt at an append. */
export interface AppendAttempt {
  readonly epoch: string;
  readonly seq: number;
  readonly parts: readonly PartitionIdsToAppend[];
  /** The offset of the first message of each part. */
  readonly bases: readonly number[];
  readonly progress: string;
  readonly checkpoint: string | undefined;
}

/**
 * One statement, so one transaction: the fence, the progress and the entries. It answers one row if it appended, and none if
 * it may not: if the epoch is another (the shared key lock makes a takeover wait for us, and us for a takeover), if the
 * number of the batch is not the next, or if an entry would not begin where its partition ends. Two such statements at
 * once meet in the primary key of `relay_batch`.
 */
export class AppendStatement {
  readonly #text: string;
  readonly #channel: string;

  constructor(quotedSchema: string, channel: string) {
    this.#text = appendSql(quotedSchema);
    this.#channel = channel;
  }

  query(attempt: AppendAttempt): pg.QueryConfig {
    const { parts } = attempt;
    const counts = parts.map(({ ids }) => ids.length);
    return {
      name: 'tailrace_append',
      text: this.#text,
      values: [
        LEASE_NAME,
        attempt.epoch,
        attempt.seq,
        attempt.progress,
        attempt.checkpoint ?? null,
        arrayLiteral(parts.map(({ partition }) => partition)),
        arrayLiteral(attempt.bases),
        arrayLiteral(counts),
        arrayLiteral(startsOf(counts)),
        idsLiteral(parts),
        this.#channel,
        parts.length === 0 ? null : notificationOf(parts.map(({ partition }) => partition)),
      ],
    };
  }
}

function appendSql(schema: string): string {
  return `with fence as materialized (
      select 1 from ${schema}.relay_lease where name = $1 and epoch = $2::bigint for key share
    ), part as materialized (
      select * from unnest($6::int[], $7::bigint[], $8::int[], $9::int[]) part (partition, base, count, start)
    ), allowed as materialized (
      select 1 from fence
      where $3::bigint = 1 + coalesce((select seq from ${schema}.relay_batch where name = $1 order by seq desc limit 1), 0)
        and not exists (select from part p where p.base <> coalesce((select e.base + e.count from ${schema}.log_entry e
          where e.partition = p.partition order by e.base desc limit 1), 0))
    ), batch as (
      insert into ${schema}.relay_batch (name, seq, epoch, progress, checkpoint)
        select $1, $3, $2, $4, $5 from allowed returning 1
    ), entry as (
      insert into ${schema}.log_entry (partition, base, count, ids, seq)
        select p.partition, p.base, p.count, ($10::bigint[])[p.start : p.start + p.count - 1], $3 from part p, batch
    )
    select case when $12::text is not null then pg_notify($11, $12) end from batch`;
}

/** Where the ids of each part begin in the array of all ids; SQL counts from 1. */
function startsOf(counts: readonly number[]): number[] {
  let next = 1;
  return counts.map((count) => (next += count) - count);
}

function idsLiteral(parts: readonly PartitionIdsToAppend[]): string {
  return `{${parts.map(({ ids }) => ids.join(',')).join(',')}}`;
}

function arrayLiteral(values: readonly number[]): string {
  return `{${values.join(',')}}`;
}

/** Postgres refuses notifications of 8,000 bytes; far below that it is cheaper to wake everybody. */
const LONGEST_NOTIFICATION = 1_000;

/** What waiting readers are told: the numbers of the partitions that grew, or nothing for "any". */
export function notificationOf(partitions: readonly number[]): string {
  const text = partitions.join(',');
  return text.length <= LONGEST_NOTIFICATION ? text : '';
}

/** The partitions that a notification names; `undefined` for any. */
export function partitionsOf(notification: string): readonly number[] | undefined {
  return notification === '' ? undefined : notification.split(',').map(Number);
}
