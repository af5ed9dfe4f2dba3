import type pg from 'pg';
import { quoteSchema } from '../postgres/schema-name.ts';
import type { Figures, GroupLag, ParkedCount, WaitingCount } from './contract.ts';

/** Whose figures to read. */
export interface FiguresOptions {
  readonly schema: string;
  /** The replication slot. @defaultValue the schema and the database's OID */
  readonly slot?: string | undefined;
}

/** Counting ends here, so that a large backlog does not make a large query. */
export const MOST_COUNTED = 1_000_000;

/** Reads the figures of a pipeline. Throws what Postgres throws. */
export async function readFigures(client: pg.ClientBase, { schema, slot }: FiguresOptions): Promise<Figures> {
  const quoted = quoteSchema(schema);
  const lag = await readLag(client, quoted);
  return {
    ...lag,
    slotRetainedBytes: await readRetained(client, schema, slot),
    groups: await readGroups(client, quoted),
    parked: await readParked(client, quoted),
    waiting: await readWaiting(client, quoted),
    relayDeadLetters: await countRelayDeadLetters(client, quoted),
  };
}

/** How far the relay has certainly come: it has passed what the snapshot sees, and the positions beyond it. */
export interface Passed {
  /** The batch that says so. What later batches hold the relay has passed too. */
  readonly seq: string;
  /** As `pg_snapshot` has it. */
  readonly snapshot: string;
  /** Positions, with commas between them. */
  readonly beyond: string;
}

/** Reads the last checkpoint. `schema` is quoted. Throws what Postgres throws. */
export async function readPassed(client: pg.ClientBase, schema: string): Promise<Passed> {
  const { rows } = await client.query<Passed>(
    `select seq, split_part(checkpoint, ' ', 1) as snapshot, split_part(checkpoint, ' ', 2) as beyond
      from ${schema}.relay_batch where checkpoint is not null order by seq desc limit 1`,
  );
  return rows[0] ?? { seq: '0', snapshot: '1:1:', beyond: '' };
}

/**
 * Everything that the last checkpoint's snapshot sees is in the log, or was set aside by the relay. Of the rest, what was
 * appended after it is known by position; so only the newest rows of outbox and log are looked at. `schema` is quoted.
 * Throws what Postgres throws.
 */
export async function readLag(
  client: pg.ClientBase,
  schema: string,
): Promise<Pick<Figures, 'lagMessages' | 'lagSeconds'>> {
  const { seq, snapshot, beyond } = await readPassed(client, schema);
  const result = await client.query<{ messages: string; seconds: number }>(
    `with logged as materialized (
        select unnest(ids) as position from ${schema}.log_entry where seq > $1
        union all select position from ${schema}.relay_dead_letter where seq > $1
        union all select unnest(('{' || $2 || '}')::bigint[])
      ), missing as (
        select occurred_at from ${schema}.outbox o
        where o.tx >= pg_snapshot_xmin($3::pg_snapshot)::text::bigint
          and not pg_visible_in_snapshot(o.tx::text::xid8, $3::pg_snapshot)
          and not exists (select from logged where logged.position = o.position)
        limit ${MOST_COUNTED}
      )
      select count(*) as messages,
        coalesce(greatest(extract(epoch from clock_timestamp() - min(occurred_at)), 0), 0)::float8 as seconds from missing`,
    [seq, beyond, snapshot],
  );
  const row = result.rows[0];
  return { lagMessages: Number(row?.messages ?? 0), lagSeconds: row?.seconds ?? 0 };
}

async function readRetained(
  client: pg.ClientBase,
  schema: string,
  slot: string | undefined,
): Promise<number | undefined> {
  const { rows } = await client.query<{ bytes: string | null }>(
    `select pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) as bytes
      from pg_replication_slots s, pg_database d
      where d.datname = current_database() and s.slot_name = coalesce($1, left($2, 50) || '_' || d.oid::text)`,
    [slot ?? null, schema],
  );
  const bytes = rows[0]?.bytes;
  return bytes == null ? undefined : Math.max(0, Number(bytes));
}

async function readGroups(client: pg.ClientBase, schema: string): Promise<GroupLag[]> {
  const { rows } = await client.query<GroupLagRow>(
    `select c.group_name as "group", c.topic, c.partition,
        greatest(coalesce(last.next_offset, 0) - c.next_offset, 0) as messages,
        coalesce(greatest(extract(epoch from clock_timestamp() - oldest.appended_at), 0), 0)::float8 as seconds,
        ${secondsToLossSql(schema)} as seconds_to_loss
      from ${schema}.consumer_cursor c
      join ${schema}.log_partition p using (topic, partition)
      join ${schema}.log_topic t on t.name = c.topic
      left join lateral (select base + count as next_offset from ${schema}.log_entry
        where partition = p.id order by base desc limit 1) last on true
      left join lateral (select appended_at from ${schema}.log_entry
        where partition = p.id and c.next_offset < last.next_offset and base <= c.next_offset
        order by base desc limit 1) oldest on true
      order by 1, 2, 3`,
  );
  return rows.map(({ messages, seconds_to_loss: toLoss, ...row }) => ({
    ...row,
    messages: Number(messages),
    ...(toLoss !== null && { secondsToLoss: toLoss }),
  }));
}

interface GroupLagRow extends Pick<GroupLag, 'group' | 'topic' | 'partition' | 'seconds'> {
  readonly messages: string;
  readonly seconds_to_loss: number | null;
}

/**
 * How long what a group still needs of a partition is safe from retention, in seconds: of a cursor `c`, its partition `p`, its
 * topic `t`, and the `last` entry. What the group has stored it does not need. Null: for ever, as far as one can tell.
 *
 * By size: what the group has not read may grow by so many bytes until the oldest of it is removed, at the pace of what was
 * measured. `schema` is quoted.
 */
export function secondsToLossSql(schema: string): string {
  return `case when ${RECEIVED} < p.start then 0 when ${RECEIVED} < last.next_offset then least(
      (t.retention_ms / 1000.0 - extract(epoch from clock_timestamp() - ${receivedAtSql(schema)}))::float8,
      (select (t.retention_bytes - sum(bytes) filter (where next_base > ${RECEIVED})) / nullif(sum(bytes), 0)
          * nullif(extract(epoch from max(last_at) - min(first_at)), 0)
        from ${schema}.log_segment s where s.partition = p.id and t.retention_bytes is not null)::float8) end`;
}

/** From where on a group needs the log, of a cursor `c`: what is stored, it has. */
export const RECEIVED = 'greatest(c.next_offset, c.stored_to)';

/** When the first record was appended that a group still needs of the log, of a cursor `c` and its partition `p`. */
export function receivedAtSql(schema: string): string {
  return `(select appended_at from ${schema}.log_entry where partition = p.id and base <= ${RECEIVED}
        order by base desc limit 1)`;
}

async function readParked(client: pg.ClientBase, schema: string): Promise<ParkedCount[]> {
  const { rows } = await client.query<{ group: string; is_dead: boolean; count: string }>(
    `select group_name as "group", dead as is_dead, count(*) as count from ${schema}.parked_message group by 1, 2 order by 1, 2`,
  );
  return rows.map(({ group, is_dead, count }) => ({ group, isDead: is_dead, count: Number(count) }));
}

async function readWaiting(client: pg.ClientBase, schema: string): Promise<WaitingCount[]> {
  const { rows } = await client.query<WaitingCount>(
    `with blocked as (select group_name, topic, partition, hashtext(key) as hash from ${schema}.parked_message
        where blocks limit ${MOST_COUNTED}),
      timer as (select group_name from ${schema}.parked_message where due_at > clock_timestamp() limit ${MOST_COUNTED}),
      key_count as (select group_name, count(distinct (topic, partition, hash))::int as n from blocked group by 1),
      timer_count as (select group_name, count(*)::int as n from timer group by 1)
    select group_name as "group", coalesce(k.n, 0) as "parkedKeys", coalesce(t.n, 0) as timers
      from key_count k full join timer_count t using (group_name) order by 1`,
  );
  return rows;
}

async function countRelayDeadLetters(client: pg.ClientBase, schema: string): Promise<number> {
  const { rows } = await client.query<{ count: string }>(`select count(*) as count from ${schema}.relay_dead_letter`);
  return Number(rows[0]?.count ?? 0);
}
