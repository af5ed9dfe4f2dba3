import type pg from 'pg';
import type { LogRecord } from '../broker/record.ts';
import { decodeHeaders } from '../message/headers.ts';
import type { MessageKind } from '../message/message.ts';
import type { KeyHead } from './parked-keys.ts';
import type { ParkNote, ParkReason } from './park-note.ts';

/** A record to be set aside. */
export interface ParkEntry {
  readonly record: LogRecord;
  readonly note: ParkNote;
  /** What its first attempt failed with, and how long ago. */
  readonly firstFailure: FirstFailure | undefined;
}

/** The first failure of a record that this process has seen. */
export interface FirstFailure {
  readonly error: string;
  /** On the monotonic clock. */
  readonly at: number;
}

/** Where a parked row is. */
export interface ParkedPlace {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly generation: number;
}

/** A parked row as its owner has read it. */
export interface ParkedRow extends ParkedPlace {
  readonly revision: number;
  readonly blocks: boolean;
  readonly reason: ParkReason;
  /** Attempts that have failed, and those that are held to have ended with their process. */
  readonly attempts: number;
  /** Whether an attempt had begun and had not ended. */
  readonly isSuspect: boolean;
  /** How late it is, in milliseconds, where it had a time. */
  readonly latenessMs: number | undefined;
}

/** What was found at the head of a key, or at a place. */
export type Found =
  | { readonly found: 'none' }
  /** It waits: for so many milliseconds, or for an operator. */
  | { readonly found: 'later'; readonly afterMs: number | undefined }
  | { readonly found: 'due'; readonly row: ParkedRow; readonly record: LogRecord };

/** Partitions of one group, as columns. */
export interface PartitionOf {
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
}

/** A row that is due. */
export interface DueRow {
  /** Which of the partitions that were asked for. */
  readonly index: number;
  readonly offset: bigint;
  readonly key: string | null;
  readonly blocks: boolean;
}

/** What is due in partitions, and when more will be. */
export interface DueRows {
  readonly rows: readonly DueRow[];
  /** In milliseconds; `undefined`: nothing waits for a time. */
  readonly nextMs: number | undefined;
}

/** What became of the recording of a unit. */
export interface BegunRecord {
  /** Records of the unit that were recorded: all that are not handled. */
  readonly recorded: number;
  /** Offsets of those that were begun before: nothing was recorded now. */
  readonly known: ReadonlySet<bigint>;
}

const LONGEST_ERROR = 8_000;

/** The SQL of one group's parked messages. */
export class ParkedMessages {
  readonly #table: string;
  readonly #audit: string;
  readonly #suspects: string;
  readonly #processed: string;
  readonly #group: string;

  /** `schema` is quoted. */
  constructor(schema: string, group: string) {
    this.#table = `${schema}.parked_message`;
    this.#audit = `${schema}.parked_audit`;
    this.#suspects = `${schema}.suspect_attempt`;
    this.#processed = `${schema}.processed_message`;
    this.#group = group;
  }

  /** Keeps full copies of records of one partition, inside the transaction of `client`. */
  async insert(client: pg.ClientBase, generation: number, entries: readonly ParkEntry[]): Promise<void> {
    const [first] = entries;
    if (first === undefined) return;
    const now = performance.now();
    const stored = entries.map(({ record }) => storable(record));
    await client.query(
      `insert into ${this.#table} (group_name, topic, partition, generation, record_offset, message_id, key, type, kind,
         headers, payload, payload_bytes, occurred_at, expires_at, deliver_at, dead, blocks, due_at, reason, error, attempts,
         first_error, first_failed_at, last_failed_at)
       select $1, $2, $3, $4, record_offset, message_id, key, type, kind, headers::json, payload::json, payload_bytes,
         occurred_at, expires_at, deliver_at, dead, blocks and not early and key is not null,
         case when early then deliver_at else clock_timestamp() + delay_ms * interval '1 millisecond' end,
         case when early then 'NOT_DUE' else reason end, error, attempts, first_error,
         clock_timestamp() - first_ago_ms * interval '1 millisecond', case when error is not null then clock_timestamp() end
       from (select *, deliver_at > clock_timestamp() is true and not dead as early
         from unnest($5::bigint[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[],
           $13::timestamptz[], $14::timestamptz[], $15::timestamptz[], $16::boolean[], $17::boolean[], $18::float8[],
           $19::text[], $20::text[], $21::int[], $22::text[], $23::float8[])
         with ordinality e (record_offset, message_id, key, type, kind, headers, payload, payload_bytes, occurred_at, expires_at,
           deliver_at, dead, blocks, delay_ms, reason, error, attempts, first_error, first_ago_ms, nth)) e
       order by nth on conflict do nothing`,
      [
        this.#group,
        first.record.topic,
        first.record.partition,
        generation,
        ...[
          entries.map(({ record }) => record.offset.toString()),
          entries.map(({ record }) => record.messageId),
          entries.map(({ record }) => record.key),
          entries.map(({ record }) => record.type),
          entries.map(({ record }) => record.kind),
          entries.map(({ record }) => JSON.stringify(record.headers)),
          stored.map(({ json }) => json),
          stored.map(({ bytes }) => bytes),
          entries.map(({ record }) => record.occurredAt),
          entries.map(({ record }) => record.expiresAt ?? null),
          entries.map(({ record }) => record.deliverAt ?? null),
          entries.map(({ note }) => note.dead),
          entries.map(({ note }) => note.blocks),
          entries.map(({ note }) => note.delayMs ?? null),
          entries.map(({ note }) => note.reason),
          entries.map(({ note }) => storableText(note.error)),
          entries.map(({ note }) => note.attempts),
          entries.map(({ note, firstFailure }) => storableText(firstFailure?.error ?? note.error)),
          entries.map(({ note, firstFailure }) => firstAgoMs(note, firstFailure, now)),
        ],
      ],
    );
  }

  /** What has become of a parked row whose attempt failed, inside the transaction of `client`, unless it was changed. */
  async rewrite(client: pg.ClientBase, row: ParkedRow, note: ParkNote, first: FirstFailure | undefined): Promise<void> {
    await client.query(
      `update ${this.#table} set dead = $7, blocks = $8 and key is not null,
         due_at = clock_timestamp() + $9::float8 * interval '1 millisecond', reason = $10, error = coalesce($11, error),
         attempts = $12, first_error = coalesce(first_error, $13),
         first_failed_at = coalesce(first_failed_at, clock_timestamp() - $14::float8 * interval '1 millisecond'),
         last_failed_at = case when $11 is null then last_failed_at else clock_timestamp() end,
         parked_at = case when $7 then clock_timestamp() else parked_at end,
         running = false, crashes = 0, revision = revision + 1
       where ${PLACE} and revision = $6`,
      [
        ...this.#place(row),
        row.revision,
        note.dead,
        note.blocks,
        note.delayMs ?? null,
        note.reason,
        storableText(note.error),
        note.attempts,
        storableText(first?.error ?? note.error),
        firstAgoMs(note, first, performance.now()),
      ],
    );
  }

  /** The statement that takes a parked row out, as literals, and returns its message id unless it was changed. */
  claimSql(client: pg.ClientBase, { topic, partition, offset, generation, revision }: ParkedRow): string {
    return `delete from ${this.#table} where group_name = ${client.escapeLiteral(this.#group)}
      and topic = ${client.escapeLiteral(topic)} and partition = ${partition} and record_offset = ${offset}
      and generation = ${generation} and revision = ${revision} returning message_id::text`;
  }

  /** Looks at the first row of a key. If it is due, it is marked as begun, unless it was marked so before. */
  lookAtKey(client: pg.ClientBase, { topic, partition, generation }: PartitionOf, key: string): Promise<Found> {
    return this.#look(
      client,
      `group_name = $1 and topic = $2 and partition = $3 and generation = $4 and blocks and hashtext(key) = hashtext($5)
       and key = $5 order by record_offset`,
      [this.#group, topic, partition, generation, key],
    );
  }

  /** Looks at a row that blocks nobody. */
  lookAtPlace(client: pg.ClientBase, place: ParkedPlace): Promise<Found> {
    return this.#look(client, `${PLACE} and not blocks and due_at is not null`, this.#place(place));
  }

  /** Counts an attempt at a row of which the one before was left unfinished. Returns how many there were, with this one. */
  async countCrash(client: pg.ClientBase, row: ParkedRow): Promise<number | undefined> {
    const { rows } = await client.query<{ crashes: number }>(
      `update ${this.#table} set crashes = crashes + 1 where ${PLACE} and revision = $6 returning crashes`,
      [...this.#place(row), row.revision],
    );
    return rows[0]?.crashes;
  }

  /** Which of the partitions have rows of former generations, by their index. */
  async outdated(client: pg.ClientBase, partitions: readonly PartitionOf[]): Promise<number[]> {
    const { rows } = await client.query<{ nth: number }>(
      `select w.nth::int from ${WANTED} where exists (select from ${this.#table} p where p.group_name = $1
         and p.topic = w.topic and p.partition = w.partition and p.generation < w.generation)`,
      [this.#group, ...columnsOf(partitions)],
    );
    return rows.map(({ nth }) => nth - 1);
  }

  /**
   * Takes rows of former generations along, inside the transaction of `client`: those below the place where this generation
   * begins. The others will be read again from the log, so their rows are removed, and kept in the audit.
   */
  async carryOver(client: pg.ClientBase, { topic, partition, generation }: PartitionOf, place: bigint): Promise<void> {
    const values = [this.#group, topic, partition, generation, place.toString()];
    const older = 'group_name = $1 and topic = $2 and partition = $3 and generation < $4';
    await client.query(
      `with gone as (delete from ${this.#table} where ${older} and record_offset >= $5 returning *)
       insert into ${this.#audit} (actor, action, group_name, topic, partition, record_offset, generation, message_id, before)
       select current_user, 'replay', group_name, topic, partition, record_offset, generation, message_id, row_to_json(gone)
       from gone`,
      values,
    );
    await client.query(`update ${this.#table} set generation = $4 where ${older} and record_offset < $5`, values);
  }

  /**
   * Records that a unit is begun, of what is not handled or parked in it; which is no attempt at any single record yet. If
   * some of its records were begun before, nothing is recorded.
   */
  async recordBegun(
    client: pg.ClientBase,
    { topic, partition, generation }: PartitionOf,
    records: readonly Pick<LogRecord, 'offset' | 'messageId'>[],
  ): Promise<BegunRecord> {
    const { rows } = await client.query<{ record_offset: string; is_known: boolean }>(
      `with known as (select record_offset from ${this.#suspects} where ${PLACES}),
       begun as (
         insert into ${this.#suspects} (group_name, topic, partition, record_offset, generation, attempts)
         select $1, $2, $3, record_offset, $5, 0 from unnest($4::bigint[], $6::uuid[]) r (record_offset, message_id)
         where not exists (select from known) and not exists (select from ${this.#processed} p
           where p.message_id = r.message_id and p.consumer = $1 and p.generation = $5)
         on conflict do nothing returning record_offset
       )
       select record_offset::text, true as is_known from known union all select record_offset::text, false from begun`,
      [
        ...[this.#group, topic, partition, records.map(({ offset }) => offset.toString()), generation],
        records.map(({ messageId }) => messageId),
      ],
    );
    const known = rows.filter(({ is_known }) => is_known).map(({ record_offset }) => BigInt(record_offset));
    return { recorded: rows.length - known.length, known: new Set(known) };
  }

  /** Counts an attempt at a record that was begun before. Returns how many there were, with this one; 0: it is handled. */
  async countSuspect(
    client: pg.ClientBase,
    { topic, partition, generation }: PartitionOf,
    { offset }: Pick<LogRecord, 'offset'>,
  ): Promise<number> {
    const { rows } = await client.query<{ attempts: number }>(
      `update ${this.#suspects} set attempts = attempts + 1 where ${PLACE} returning attempts`,
      this.#place({ topic, partition, generation, offset }),
    );
    return rows[0]?.attempts ?? 0;
  }

  /** Forgets the attempts at records, inside the transaction of `client`. */
  async forgetSuspects(
    client: pg.ClientBase,
    { topic, partition, generation }: PartitionOf,
    records: readonly Pick<LogRecord, 'offset'>[],
  ): Promise<void> {
    const offsets = records.map(({ offset }) => offset.toString());
    await client.query(`delete from ${this.#suspects} where ${PLACES}`, [
      ...[this.#group, topic, partition, offsets, generation],
    ]);
  }

  /** The first rows of all keys that are blocked, by the index of the partition. */
  async heads(client: pg.ClientBase, partitions: readonly PartitionOf[]): Promise<KeyHead[][]> {
    const { rows } = await client.query<{ nth: number; key: string; is_ready: boolean }>(
      `select w.nth::int, h.key, h.is_ready from ${WANTED} cross join lateral (
         select distinct on (key) key, not dead and due_at <= clock_timestamp() is not false as is_ready
         from ${this.#table} p where p.group_name = $1 and p.topic = w.topic and p.partition = w.partition
           and p.generation = w.generation and blocks order by key, record_offset) h`,
      [this.#group, ...columnsOf(partitions)],
    );
    const heads = partitions.map((): KeyHead[] => []);
    for (const { nth, key, is_ready } of rows) heads[nth - 1]?.push({ key, isReady: is_ready });
    return heads;
  }

  /** What is due in partitions, at most `limit` rows of each, and when the next is. */
  async due(client: pg.ClientBase, partitions: readonly PartitionOf[], limit: number): Promise<DueRows> {
    const { rows } = await client.query<{
      nth: number;
      record_offset: string | null;
      key: string | null;
      blocks: boolean;
      wait_ms: number;
    }>(
      `select w.nth::int, d.* from ${WANTED} cross join lateral (
         (select record_offset::text, key, blocks, 0::float8 as wait_ms from ${this.#table} p
           where p.group_name = $1 and p.topic = w.topic and p.partition = w.partition and p.generation = w.generation
             and due_at <= statement_timestamp() order by due_at limit $5)
         union all
         (select null, null, false, extract(epoch from due_at - statement_timestamp())::float8 * 1000 from ${this.#table} p
           where p.group_name = $1 and p.topic = w.topic and p.partition = w.partition and p.generation = w.generation
             and due_at > statement_timestamp() order by due_at limit 1)) d`,
      [this.#group, ...columnsOf(partitions), limit],
    );
    const waits = rows.filter(({ record_offset }) => record_offset === null).map(({ wait_ms }) => wait_ms);
    return {
      rows: rows.flatMap(({ nth, record_offset, key, blocks }) =>
        record_offset === null ? [] : [{ index: nth - 1, offset: BigInt(record_offset), key, blocks }],
      ),
      nextMs: waits.length === 0 ? undefined : Math.min(...waits),
    };
  }

  async #look(client: pg.ClientBase, where: string, values: readonly unknown[]): Promise<Found> {
    const { rows } = await client.query<HeadRow>(
      `with head as (
         select *, not dead and due_at <= clock_timestamp() is not false as is_due from ${this.#table} where ${where} limit 1
       ), begun as (
         update ${this.#table} p set running = true from head h
         where p.group_name = h.group_name and p.topic = h.topic and p.partition = h.partition
           and p.record_offset = h.record_offset and p.generation = h.generation and h.is_due and not h.running
       )
       select topic, partition, record_offset::text, generation, message_id, key, type, kind, headers::text, payload::text,
         payload_bytes, ${msOf('occurred_at')}, ${msOf('expires_at')}, ${msOf('deliver_at')}, revision, blocks, reason,
         attempts, running, is_due, dead, extract(epoch from clock_timestamp() - due_at)::float8 * 1000 as late_ms
       from head`,
      [...values],
    );
    const [row] = rows;
    if (row === undefined) return { found: 'none' };
    if (row.is_due) return { found: 'due', row: parkedRowOf(row), record: recordOf(row) };
    return { found: 'later', afterMs: row.dead || row.late_ms === null ? undefined : Math.max(0, -row.late_ms) };
  }

  #place({ topic, partition, offset, generation }: ParkedPlace): unknown[] {
    return [this.#group, topic, partition, offset.toString(), generation];
  }
}

const PLACES =
  'group_name = $1 and topic = $2 and partition = $3 and record_offset = any($4::bigint[]) and generation = $5';
const PLACE = 'group_name = $1 and topic = $2 and partition = $3 and record_offset = $4 and generation = $5';
const WANTED = 'unnest($2::text[], $3::int[], $4::int[]) with ordinality w (topic, partition, generation, nth)';

function columnsOf(partitions: readonly PartitionOf[]): unknown[] {
  return [
    partitions.map(({ topic }) => topic),
    partitions.map(({ partition }) => partition),
    partitions.map(({ generation }) => generation),
  ];
}

/** Rounded up, so that no time is too early. */
function msOf(column: string): string {
  return `ceil(extract(epoch from ${column}) * 1000)::float8 as ${column}`;
}

interface HeadRow {
  topic: string;
  partition: number;
  record_offset: string;
  generation: number;
  message_id: string;
  key: string | null;
  type: string;
  kind: MessageKind;
  headers: string;
  payload: string | null;
  payload_bytes: Buffer | null;
  occurred_at: number;
  expires_at: number | null;
  deliver_at: number | null;
  revision: number;
  blocks: boolean;
  reason: ParkReason;
  attempts: number;
  running: boolean;
  is_due: boolean;
  dead: boolean;
  late_ms: number | null;
}

function parkedRowOf(row: HeadRow): ParkedRow {
  return {
    topic: row.topic,
    partition: row.partition,
    offset: BigInt(row.record_offset),
    generation: row.generation,
    revision: row.revision,
    blocks: row.blocks,
    reason: row.reason,
    attempts: row.attempts,
    isSuspect: row.running,
    latenessMs: row.late_ms ?? undefined,
  };
}

function recordOf(row: HeadRow): LogRecord {
  // What is no JSON was kept as bytes, and is text all the same.
  const isText = row.reason === 'INVALID_PAYLOAD' && row.payload_bytes !== null;
  return {
    topic: row.topic,
    partition: row.partition,
    offset: BigInt(row.record_offset),
    messageId: row.message_id,
    kind: row.kind,
    type: row.type,
    key: row.key,
    headers: decodeHeaders(row.headers),
    payload: isText ? (row.payload_bytes?.toString() ?? null) : row.payload,
    payloadBytes: isText ? null : row.payload_bytes,
    occurredAt: new Date(row.occurred_at),
    ...(row.expires_at !== null && { expiresAt: new Date(row.expires_at) }),
    ...(row.deliver_at !== null && { deliverAt: new Date(row.deliver_at) }),
  };
}

function firstAgoMs({ error }: ParkNote, first: FirstFailure | undefined, now: number): number | null {
  if (first !== undefined) return now - first.at;
  return error === undefined ? null : 0;
}

/** Text that is no JSON does not fit the column `payload`; its bytes are kept instead. */
function storable({ payload, payloadBytes }: LogRecord): { json: string | null; bytes: Buffer | null } {
  if (payload === null || isJson(payload)) return { json: payload, bytes: payloadBytes };
  return { json: null, bytes: Buffer.from(payload) };
}

/** Postgres' text has no NUL. */
function storableText(text: string | undefined): string | null {
  return text === undefined ? null : text.slice(0, LONGEST_ERROR).replaceAll('\0', '\uFFFD');
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
