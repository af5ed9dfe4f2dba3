import type pg from 'pg';
import type { LogRecord } from '../broker/record.ts';
import { decodeHeaders } from '../message/headers.ts';
import type { MessageKind } from '../message/message.ts';

/** An assignment of a partition. */
export interface StoredPartition {
  readonly topic: string;
  readonly partition: number;
  readonly epoch: bigint;
}

/** What is stored of a partition and not handled. */
export interface StoredAmount {
  /** Where it ends. */
  readonly to: bigint;
  readonly records: number;
  readonly bytes: number;
}

/** A message and its place. */
export interface StoredId {
  readonly offset: bigint;
  readonly messageId: string;
}

/** Of a read: from an offset, below another, and no more than this; one record at the least, if there is one. */
export interface StoredRange {
  readonly from: bigint;
  readonly below: bigint;
  readonly maxRecords: number;
  readonly maxBytes: number;
}

/** The SQL of one group's inbox. */
export class InboxTable {
  readonly #schema: string;
  readonly #group: string;

  /** `schema` is quoted. */
  constructor(schema: string, group: string) {
    this.#schema = schema;
    this.#group = group;
  }

  /**
   * Stores records of one partition behind what is stored, inside the transaction of `client`. False, with nothing done,
   * where that does not end at `formerTo`. Raises `TR001` where the assignment has ended.
   */
  async store(
    client: pg.ClientBase,
    { topic, partition, epoch }: StoredPartition,
    formerTo: bigint,
    records: readonly LogRecord[],
    sizes: readonly number[],
  ): Promise<boolean> {
    const to = (records.at(-1)?.offset ?? formerTo - 1n) + 1n;
    const { rows } = await client.query<{ is_extended: boolean }>(
      `select ${this.#schema}.extend_inbox($1, $2, $3, $4, $5, $6) as is_extended`,
      [this.#group, topic, partition, epoch.toString(), formerTo.toString(), to.toString()],
    );
    if (rows[0]?.is_extended !== true) return false;
    await client.query(
      `insert into ${this.#schema}.inbox (group_name, topic, partition, record_offset, message_id, type, kind, key, headers,
         payload, is_text, bytes, occurred_at, expires_at, deliver_at)
       select $1, $2, $3, record_offset, message_id, type, kind, key, headers::json, payload, is_text, bytes, occurred_at,
         expires_at, deliver_at
       from unnest($4::bigint[], $5::uuid[], $6::text[], $7::text[], $8::bytea[], $9::text[], $10::bytea[], $11::boolean[],
         $12::int[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[])
         r (record_offset, message_id, type, kind, key, headers, payload, is_text, bytes, occurred_at, expires_at, deliver_at)`,
      [
        ...[this.#group, topic, partition],
        records.map(({ offset }) => offset.toString()),
        records.map(({ messageId }) => messageId),
        records.map(({ type }) => type),
        records.map(({ kind }) => kind),
        records.map(({ key }) => (key === null ? null : Buffer.from(key))),
        records.map(({ headers }) => JSON.stringify(headers)),
        records.map(({ payload, payloadBytes }) => payloadBytes ?? Buffer.from(payload ?? '')),
        records.map(({ payloadBytes }) => payloadBytes === null),
        sizes,
        records.map(({ occurredAt }) => occurredAt),
        records.map(({ expiresAt }) => expiresAt ?? null),
        records.map(({ deliverAt }) => deliverAt ?? null),
      ],
    );
    return true;
  }

  /** Records in order, as they came from the log. */
  async read(client: pg.ClientBase, place: StoredPartition, range: StoredRange): Promise<LogRecord[]> {
    const { topic, partition } = place;
    const { rows } = await client.query<InboxRow>(
      `select record_offset::text, message_id, type, kind, key, headers::text, payload, is_text, ${msOf('occurred_at')},
         ${msOf('expires_at')}, ${msOf('deliver_at')}
       from (select *, sum(bytes) over (order by record_offset) - bytes as bytes_before
         from (select * from ${this.#schema}.inbox where ${PLACE} and record_offset >= $4 and record_offset < $5
           order by record_offset limit $6) found) counted
       where bytes_before < $7 order by counted.record_offset`,
      [
        ...[this.#group, topic, partition, range.from.toString(), range.below.toString()],
        ...[range.maxRecords, range.maxBytes],
      ],
    );
    return rows.map((row) => recordOf(row, topic, partition));
  }

  /** How much is stored and not handled; `undefined` where the assignment has ended. */
  async amount(client: pg.ClientBase, place: StoredPartition): Promise<StoredAmount | undefined> {
    const { rows } = await client.query<{ stored_to: string; records: number; bytes: number }>(
      `select c.stored_to::text, i.* from ${this.#schema}.consumer_cursor c, lateral (
         select count(*)::int as records, coalesce(sum(bytes), 0)::float8 as bytes from ${this.#schema}.inbox
         where ${PLACE} and record_offset >= c.next_offset and record_offset < c.stored_to) i
       where c.group_name = $1 and c.topic = $2 and c.partition = $3 and c.epoch = $4`,
      this.#placeOf(place),
    );
    const [row] = rows;
    return row && { to: BigInt(row.stored_to), records: row.records, bytes: row.bytes };
  }

  /** Removes what is below the group's place, and answers that; `undefined` where the assignment has ended. */
  async trim(client: pg.ClientBase, place: StoredPartition): Promise<bigint | undefined> {
    const { rows } = await client.query<{ place: string | null }>(
      `select ${this.#schema}.trim_inbox($1, $2, $3, $4)::text as place`,
      this.#placeOf(place),
    );
    const [row] = rows;
    return row?.place == null ? undefined : BigInt(row.place);
  }

  /** The messages that are stored from an offset on, at most `limit`; or with `last`, the last one below another offset. */
  async ids(
    client: pg.ClientBase,
    { topic, partition }: StoredPartition,
    from: bigint,
    limit: number,
  ): Promise<StoredId[]> {
    const { rows } = await client.query<IdRow>(
      `select record_offset::text, message_id from ${this.#schema}.inbox i where ${PLACE} and record_offset >= $4
       order by i.record_offset limit $5`,
      [this.#group, topic, partition, from.toString(), limit],
    );
    return rows.map(idOf);
  }

  /** The last message that is stored below an offset. */
  async lastId(
    client: pg.ClientBase,
    { topic, partition }: StoredPartition,
    below: bigint,
  ): Promise<StoredId | undefined> {
    const { rows } = await client.query<IdRow>(
      `select record_offset::text, message_id from ${this.#schema}.inbox i where ${PLACE} and record_offset < $4
       order by i.record_offset desc limit 1`,
      [this.#group, topic, partition, below.toString()],
    );
    return rows.map(idOf)[0];
  }

  /**
   * Lets what is stored end at `fork` or before it, inside the transaction of `client`, where the assignment is still the given one
   * and what is stored ends at `to`. Ends the assignment. Returns how many records were removed.
   */
  async cut(client: pg.ClientBase, place: StoredPartition, to: bigint, fork: bigint): Promise<number> {
    const { topic, partition, epoch } = place;
    const { rowCount } = await client.query(
      `update ${this.#schema}.consumer_cursor c set epoch = c.epoch + 1, owner = null,
         stored_to = greatest(c.stored_from, 1 + (select max(record_offset) from ${this.#schema}.inbox
           where ${PLACE} and record_offset < $6))
       where c.group_name = $1 and c.topic = $2 and c.partition = $3 and c.epoch = $4 and c.stored_to = $5`,
      [this.#group, topic, partition, epoch.toString(), to.toString(), fork.toString()],
    );
    if (rowCount === 0) return 0;
    const removed = await client.query(`delete from ${this.#schema}.inbox where ${PLACE} and record_offset >= $4`, [
      ...[this.#group, topic, partition, fork.toString()],
    ]);
    return removed.rowCount ?? 0;
  }

  #placeOf({ topic, partition, epoch }: StoredPartition): unknown[] {
    return [this.#group, topic, partition, epoch.toString()];
  }
}

const PLACE = 'group_name = $1 and topic = $2 and partition = $3';

function msOf(column: string): string {
  return `(extract(epoch from ${column}) * 1000)::float8 as ${column}`;
}

interface IdRow {
  record_offset: string;
  message_id: string;
}

interface InboxRow extends IdRow {
  type: string;
  kind: MessageKind;
  key: Buffer | null;
  headers: string;
  payload: Buffer;
  is_text: boolean;
  occurred_at: number;
  expires_at: number | null;
  deliver_at: number | null;
}

function idOf({ record_offset, message_id }: IdRow): StoredId {
  return { offset: BigInt(record_offset), messageId: message_id };
}

function recordOf(row: InboxRow, topic: string, partition: number): LogRecord {
  return {
    topic,
    partition,
    offset: BigInt(row.record_offset),
    messageId: row.message_id,
    kind: row.kind,
    type: row.type,
    key: row.key === null ? null : row.key.toString(),
    headers: decodeHeaders(row.headers),
    payload: row.is_text ? row.payload.toString() : null,
    payloadBytes: row.is_text ? null : row.payload,
    occurredAt: new Date(row.occurred_at),
    ...(row.expires_at !== null && { expiresAt: new Date(row.expires_at) }),
    ...(row.deliver_at !== null && { deliverAt: new Date(row.deliver_at) }),
  };
}
