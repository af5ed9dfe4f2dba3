import type pg from 'pg';
import { readPassed } from '../../admin/figures.ts';
import { keyHash, partitionAmong } from '../../broker/partitioner.ts';
import { unpackRecords } from '../../broker/postgres/packed-entry.ts';
import { decodeHeaders } from '../../message/headers.ts';
import { traceContextOf } from '../../message/trace-context.ts';
import type { GroupFacts, InLog, InOutbox, MessageFacts, SetAsideByRelay } from './message-way.ts';

/** Where to look, and for how long. */
export interface Lookup {
  /** In lower case. */
  readonly messageId: string;
  /** Quoted. */
  readonly schema: string;
}

/**
 * Reads everything that a database knows of a message; `undefined` if that is nothing. There is no index on message ids in
 * the outbox, since every insert would pay for it: see {@link findNearby}. All of it is read as of one moment, so that a
 * message that a relay moves meanwhile is seen in one place. Throws what Postgres throws; the client is of no more use then.
 */
export async function readMessageFacts(client: pg.ClientBase, lookup: Lookup): Promise<MessageFacts | undefined> {
  await client.query('begin isolation level repeatable read read only');
  const facts = await readFacts(client, lookup);
  await client.query('commit');
  return facts;
}

async function readFacts(client: pg.ClientBase, lookup: Lookup): Promise<MessageFacts | undefined> {
  const row = (await findNearby(client, lookup)) ?? (await findAnywhere(client, lookup));
  if (row === undefined) return readGroupsAlone(client, lookup);
  const { headers, ...outbox } = row;
  const log = await readPlace(client, lookup, outbox);
  const relay = await readSetAside(client, lookup, outbox);
  const isMissing = log === null && relay === null && (await hasPassed(client, lookup, outbox));
  const isCompacted = isMissing && (await isTopicCompacted(client, lookup, outbox));
  return {
    traceId: traceContextOf(decodeHeaders(headers))?.traceId ?? null,
    outbox,
    log,
    relay,
    isDiscarded: isMissing && !isCompacted,
    isSuperseded: isMissing && isCompacted,
    groups: await readGroups(client, lookup, outbox.topic, log),
  };
}

/** A message whose outbox is in another database, or that is gone from it. */
async function readGroupsAlone(client: pg.ClientBase, lookup: Lookup): Promise<MessageFacts | undefined> {
  const groups = await readGroups(client, lookup, null, null);
  if (groups.length === 0) return undefined;
  return { traceId: null, outbox: null, log: null, relay: null, isDiscarded: false, isSuperseded: false, groups };
}

type OutboxRow = InOutbox & { readonly headers: string };

/** How far from its place by id a message is looked for, in positions. */
const NEARBY = 100_000;

const COMMITTED_AT = `case when current_setting('track_commit_timestamp') = 'on' then pg_xact_commit_timestamp(m.xmin) end`;

const OUTBOX_COLUMNS = `position::text as position, topic, key, type, kind, tx::text as transaction, occurred_at as "occurredAt",
  ${COMMITTED_AT} as "committedAt", headers::text as headers`;

/**
 * Ids begin with a time (UUIDv7), and positions grow with time: so halving the range of positions by id leads close to where
 * a message is, and it is among the rows around. An id of another kind leads anywhere.
 */
async function findNearby(client: pg.ClientBase, { messageId, schema }: Lookup): Promise<OutboxRow | undefined> {
  const { rows } = await client.query<OutboxRow>(
    `with recursive range (low, high) as (
        select coalesce((select position from ${schema}.outbox order by position limit 1), 1),
          coalesce((select position from ${schema}.outbox order by position desc limit 1), 0)
      union all
        select case when o.message_id < $1 then o.position + 1 else r.low end,
          case when o.message_id < $1 then r.high else (r.low + r.high) / 2 end
        from range r
        left join lateral (select position, message_id from ${schema}.outbox
          where position >= (r.low + r.high) / 2 order by position limit 1) o on true
        where r.low < r.high
      ), place as (select low from range where low >= high limit 1)
      select ${OUTBOX_COLUMNS} from ${schema}.outbox m
      where message_id = $1
        and position between (select low from place) - ${NEARBY} and (select low from place) + ${NEARBY} limit 1`,
    [messageId],
  );
  return rows[0];
}

async function findAnywhere(client: pg.ClientBase, { messageId, schema }: Lookup): Promise<OutboxRow | undefined> {
  const { rows } = await client.query<OutboxRow>(
    `select ${OUTBOX_COLUMNS} from ${schema}.outbox m where message_id = $1 limit 1`,
    [messageId],
  );
  return rows[0];
}

/** Milliseconds that a clock may be wrong by before the search takes longer. */
const CLOCK_SKEW_MS = 10 * 60 * 1000;

/**
 * The entry that names the position: looked for where the key leads, from about the message's time on, then before it. At last
 * some packed entries from that time on.
 */
async function readPlace(
  client: pg.ClientBase,
  { messageId, schema }: Lookup,
  { topic, key, position }: InOutbox,
): Promise<InLog | null> {
  const all = await client.query<{ id: number; former: number[] }>(
    `select id, array(select partitions_before from ${schema}.log_topic_growth where topic = $1 order by 1) as former
      from ${schema}.log_partition where topic = $1 order by partition`,
    [topic],
  );
  const ids = all.rows.map(({ id }) => id);
  const counts = [...(all.rows[0]?.former ?? []), ids.length];
  const places =
    key === null ? ids : counts.flatMap((_, at) => ids[partitionAmong(keyHash(key), counts.slice(0, at + 1))] ?? []);
  const about = timeOf(messageId) - CLOCK_SKEW_MS;
  for (const comparison of ['>=', '<']) {
    const { rows } = await client.query<InLog>(
      `select p.topic, p.partition, (e.base + array_position(e.ids, $2::bigint) - 1)::text as offset, e.appended_at as "appendedAt"
        from ${schema}.log_entry e join ${schema}.log_partition p on p.id = e.partition
        where e.partition = any($1) and e.appended_at ${comparison} to_timestamp($3::float8 / 1000) and $2::bigint = any(e.ids) limit 1`,
      [places, position, about],
    );
    if (rows[0] !== undefined) return rows[0];
  }
  return readPackedPlace(client, schema, places, { position, about });
}

/** Packed entries that are looked into: a message is packed among those of about its time. */
const MOST_PACKED = 20;

interface PackedRow {
  readonly topic: string;
  readonly partition: number;
  readonly base: string;
  readonly count: number;
  readonly packed: Buffer;
}

async function readPackedPlace(
  client: pg.ClientBase,
  schema: string,
  places: readonly number[],
  { position, about }: { readonly position: string; readonly about: number },
): Promise<InLog | null> {
  const { rows } = await client.query<PackedRow>(
    `select p.topic, p.partition, e.base, e.count, e.packed
      from ${schema}.log_entry e join ${schema}.log_partition p on p.id = e.partition
      where e.partition = any($1) and e.packed is not null and e.appended_at >= to_timestamp($2::float8 / 1000)
      order by e.appended_at, e.base limit ${MOST_PACKED}`,
    [places, about],
  );
  for (const { topic, partition, base, count, packed } of rows) {
    const records = unpackRecords(packed, { base: BigInt(base), count: BigInt(count) });
    const found = records.find((record) => record.position === BigInt(position));
    if (found === undefined) continue;
    const appendedAt = new Date(Number(found.appendedAt) * 1_000);
    return { topic, partition, offset: String(found.offset), appendedAt };
  }
  return null;
}

async function isTopicCompacted(client: pg.ClientBase, { schema }: Lookup, { topic }: InOutbox): Promise<boolean> {
  const { rowCount } = await client.query(`select from ${schema}.log_topic where name = $1 and compact`, [topic]);
  return rowCount === 1;
}

/** The time in a UUIDv7, in Unix milliseconds; of another id, any number. */
function timeOf(messageId: string): number {
  return Number.parseInt(messageId.replaceAll('-', '').slice(0, 12), 16);
}

async function readSetAside(
  client: pg.ClientBase,
  { schema }: Lookup,
  { position }: InOutbox,
): Promise<SetAsideByRelay | null> {
  const { rows } = await client.query<SetAsideByRelay>(
    `select reason, attempts, error, set_aside_at as "setAsideAt" from ${schema}.relay_dead_letter where position = $1`,
    [position],
  );
  return rows[0] ?? null;
}

async function hasPassed(
  client: pg.ClientBase,
  { schema }: Lookup,
  { position, transaction }: InOutbox,
): Promise<boolean> {
  const { snapshot, beyond } = await readPassed(client, schema);
  const { rows } = await client.query<{ passed: boolean }>(
    `select pg_visible_in_snapshot($1::xid8, $2::pg_snapshot) or $3::bigint = any(('{' || $4 || '}')::bigint[]) as passed`,
    [transaction, snapshot, position, beyond],
  );
  return rows[0]?.passed === true;
}

interface GroupRow {
  readonly group: string;
  readonly isHandled: boolean;
  readonly handledAt: Date | null;
  readonly nextOffset: string | null;
  readonly isDead: boolean | null;
  readonly reason: string;
  readonly attempts: number;
  readonly error: string | null;
  readonly parkedAt: Date;
}

/** The groups that read the topic, or that have done something about the message. */
async function readGroups(
  client: pg.ClientBase,
  { messageId, schema }: Lookup,
  topic: string | null,
  log: InLog | null,
): Promise<GroupFacts[]> {
  const { rows } = await client.query<GroupRow>(
    `select g.name as "group", handled.message_id is not null as "isHandled", handled.at as "handledAt",
        place.next_offset::text as "nextOffset", parked.dead as "isDead", parked.reason, parked.attempts, parked.error,
        parked.parked_at as "parkedAt"
      from ${schema}.consumer_group g
      left join ${schema}.consumer_cursor place
        on place.group_name = g.name and place.topic = $2 and place.partition = $3
      left join lateral (select message_id, ${COMMITTED_AT} as at from ${schema}.processed_message m
        where message_id = $1 and consumer = g.name and generation = coalesce(place.generation, g.generation) limit 1) handled on true
      left join lateral (select * from ${schema}.parked_message p
        where p.message_id = $1 and p.group_name = g.name and p.generation = coalesce(place.generation, g.generation) limit 1) parked on true
      where handled.message_id is not null or parked.message_id is not null
        or exists (select from ${schema}.consumer_cursor c where c.group_name = g.name and c.topic = $2)
      order by g.name collate "C"`,
    [messageId, topic, log?.partition ?? null],
  );
  return rows.map(factsOf);
}

function factsOf({ group, isHandled, handledAt, nextOffset, isDead, ...rest }: GroupRow): GroupFacts {
  const { reason, attempts, error, parkedAt } = rest;
  const parked = isDead === null ? null : { isDead, reason, attempts, error, parkedAt };
  return { group, isHandled, handledAt, nextOffset, parked };
}
