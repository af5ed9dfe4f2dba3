import type { Statement } from '../../postgres/round-trip.ts';
import type { UnroutableMessages } from '../log.ts';
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
  /** Of the partitions that the messages were routed to. */
  readonly layout: string;
  readonly parts: readonly PartitionIdsToAppend[];
  /** The offset of the first message of each part. */
  readonly bases: readonly number[];
  readonly progress: string;
  readonly checkpoint: string | undefined;
  readonly unroutable: readonly UnroutableMessages[];
  readonly retried: readonly number[];
}

/**
 * One statement, so one transaction: the fence, the progress and the entries. It answers one row if it appended, and none if
 * it may not: if the epoch or the layout is another (the shared key lock makes a takeover or a change of the layout wait for
 * us, and us for it), if the number of the batch is not the next, or if an entry would not begin where its partition ends. Two such statements at
 * once meet in the primary key of `relay_batch`.
 */
export class AppendStatement {
  readonly #text: string;
  readonly #textWithDeadLetters: string;
  readonly #channel: string;

  constructor(quotedSchema: string, channel: string) {
    this.#text = appendSql(quotedSchema);
    this.#textWithDeadLetters = appendSql(quotedSchema, deadLettersSql(quotedSchema));
    this.#channel = channel;
  }

  of(attempt: AppendAttempt): Statement {
    const { unroutable, retried } = attempt;
    const values = this.#values(attempt);
    if (unroutable.length === 0 && retried.length === 0) return { name: 'tailrace_append', text: this.#text, values };
    return {
      name: 'tailrace_append_with_dead_letters',
      text: this.#textWithDeadLetters,
      values: [...values, JSON.stringify(unroutable), arrayLiteral(retried)],
    };
  }

  #values(attempt: AppendAttempt): (string | null)[] {
    const { parts } = attempt;
    const counts = parts.map(({ ids }) => ids.length);
    return [
      LEASE_NAME,
      attempt.epoch,
      String(attempt.seq),
      attempt.progress,
      attempt.checkpoint ?? null,
      arrayLiteral(parts.map(({ partition }) => partition)),
      arrayLiteral(attempt.bases),
      arrayLiteral(counts),
      arrayLiteral(startsOf(counts)),
      idsLiteral(parts),
      this.#channel,
      parts.length === 0 ? null : notificationOf(parts.map(({ partition }) => partition)),
      attempt.layout,
    ];
  }
}

function appendSql(schema: string, further = ''): string {
  return `with fence as materialized (
      select 1 from ${schema}.relay_lease where name = $1 and epoch = $2::bigint and layout = $13::bigint for key share
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
    )${further}
    select case when $12::text is not null then pg_notify($11, $12) end from batch`;
}

/** What cannot be routed is set aside; if it was already, it was tried again in vain. What was routed is no dead letter any more. */
function deadLettersSql(schema: string): string {
  return `, set_aside as (
      insert into ${schema}.relay_dead_letter as d (position, seq, topic, reason, error)
        select id, $3, u.topic, u.reason, u.error
          from batch, json_to_recordset($14::json) u (topic text, reason text, error text, ids bigint[]), unnest(u.ids) id
        on conflict (position) do update set reason = excluded.reason, error = excluded.error, attempts = d.attempts + 1,
          asked = null, asked_by = null, asked_at = null
    ), released as (
      delete from ${schema}.relay_dead_letter where position = any($15::bigint[]) and exists (select from batch)
    )`;
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
