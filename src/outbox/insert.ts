import type { EncodedMessage } from '../message/encode.ts';

/** One statement with its parameters. All parameters are text, but for the bytes of a single message. */
export interface Statement {
  readonly text: string;
  readonly values: unknown[];
}

/** A batch of a producer, whose batches count from 1. */
export interface Batch {
  readonly producer: string;
  readonly number: number;
}

/** About how much one statement may carry; Postgres takes no parameter of 1 GB, and no server likes one near it. */
const STATEMENT_BYTES = 32_000_000;

/** Never position and tx: the table fills them in, and the role that writes needs no right to them. */
const COLUMNS = 'message_id, kind, type, topic, key, headers, payload, payload_bytes, occurred_at';

/**
 * The statements that insert messages in their order: one, unless they are larger than `statementBytes`.
 *
 * @param locksKeys whether they lock the messages' keys first, until the end of the transaction.
 */
export function insertStatements(
  quotedSchema: string,
  messages: readonly EncodedMessage[],
  locksKeys = false,
  statementBytes: number = STATEMENT_BYTES,
): Statement[] {
  return groupsOf(messages, statementBytes).map((group) => {
    const locks = locksKeys && group.some(({ key }) => key !== null);
    const [first] = group;
    return first !== undefined && group.length === 1
      ? insertOne(quotedSchema, first, locks)
      : insertMany(quotedSchema, group, locks);
  });
}

/**
 * The statement that inserts a batch in its order, once: run again, or twice at the same time, it inserts nothing more. It
 * is a transaction of its own.
 */
export function insertBatchStatement(
  quotedSchema: string,
  messages: readonly EncodedMessage[],
  batch: Batch,
  locksKeys = false,
): Statement {
  return insertMany(quotedSchema, messages, locksKeys && messages.some(({ key }) => key !== null), batch);
}

const MESSAGES =
  'unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::json[], $7::json[], $8::bytea[], $9::timestamptz[]' +
  `) with ordinality as message (${COLUMNS}, nth)`;

const TIMED_MESSAGES =
  'unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::json[], $7::json[], $8::bytea[], $9::timestamptz[], ' +
  `$10::timestamptz[], $11::timestamptz[], $12::float8[]) with ordinality as message (${COLUMNS}, expires_at, deliver_at, delay_ms, nth)`;

function groupsOf(messages: readonly EncodedMessage[], statementBytes: number): EncodedMessage[][] {
  const groups: EncodedMessage[][] = [];
  let room = 0;
  for (const message of messages) {
    if (message.bytes > room || groups.length === 0) {
      groups.push([]);
      room = statementBytes;
    }
    groups.at(-1)?.push(message);
    room -= message.bytes;
  }
  return groups;
}

function insertOne(quotedSchema: string, message: EncodedMessage, locksKey: boolean): Statement {
  const { id, kind, type, topic, key, headers, payload, payloadBytes, occurredAt } = message;
  const timed = hasTiming(message);
  const into = `insert into ${quotedSchema}.outbox (${COLUMNS}${timed ? TIMING_COLUMNS : ''})`;
  const timing = timed ? `, ${timingSql('$10::timestamptz', '$11::timestamptz', '$12::float8')}` : '';
  const values = [
    id,
    kind,
    type,
    topic,
    key,
    headers,
    payload,
    payloadBytes,
    occurredAt,
    ...(timed ? timingOf(message) : []),
  ];
  if (!locksKey) return { text: `${into} values ($1, $2, $3, $4, $5, $6, $7, $8, $9${timing})`, values };
  return {
    // The position is drawn for the row that `locked` gives, and so after the lock was obtained.
    text:
      `with locked as materialized (select ${quotedSchema}.lock_key($4::text, $5::text)) ${into} ` +
      `select $1::uuid, $2, $3, $4::text, $5::text, $6::json, $7::json, $8::bytea, $9::timestamptz${timing} from locked`,
    values,
  };
}

/**
 * The order by makes the positions follow the order of the messages: the identity is drawn above the sort, and so after all
 * locks were obtained. Those are taken in the order of the keys, so that two such statements do not wait for each other.
 */
function insertMany(
  quotedSchema: string,
  messages: readonly EncodedMessage[],
  locksKeys: boolean,
  batch?: Batch,
): Statement {
  const column = (read: (message: EncodedMessage) => string | null): string => arrayLiteral(messages.map(read));
  const timed = messages.some(hasTiming);
  const source = timed ? TIMED_MESSAGES : MESSAGES;
  const into = `insert into ${quotedSchema}.outbox (${COLUMNS}${timed ? TIMING_COLUMNS : ''})`;
  const selected = timed ? `${COLUMNS}, ${timingSql('expires_at', 'deliver_at', 'delay_ms')}` : COLUMNS;
  const first = [
    ...(batch === undefined ? [] : [claimedSql(quotedSchema, timed ? '$13' : '$10', timed ? '$14' : '$11')]),
    ...(locksKeys ? [`message as materialized (select * from ${source})`, lockedSql(quotedSchema)] : []),
  ];
  const from = [
    ...(batch === undefined ? [] : ['claimed']),
    ...(locksKeys ? ['message', '(select count(*) from locked) obtained'] : [source]),
  ];
  const withFirst = first.length === 0 ? '' : `with ${first.join(', ')} `;
  return {
    text: `${withFirst}${into} select ${selected} from ${from.join(', ')} order by nth`,
    values: [
      column(({ id }) => id),
      column(({ kind }) => kind),
      column(({ type }) => type),
      column(({ topic }) => topic),
      column(({ key }) => key),
      column(({ headers }) => headers),
      column(({ payload }) => payload),
      column(({ payloadBytes }) => (payloadBytes === null ? null : hexOf(payloadBytes))),
      column(({ occurredAt }) => occurredAt),
      ...(timed ? [0, 1, 2].map((nth) => column((message) => timingOf(message)[nth] ?? null)) : []),
      ...(batch === undefined ? [] : [batch.producer, String(batch.number)]),
    ],
  };
}

function lockedSql(quotedSchema: string): string {
  return `locked as materialized (select ${quotedSchema}.lock_key(topic, key) from
    (select distinct topic, key from message where key is not null order by topic, key) keys)`;
}

/** One row, or none if the batch is in the outbox already. */
function claimedSql(quotedSchema: string, producer: string, number: string): string {
  return `claimed as materialized (select where ${quotedSchema}.claim_batch(${producer}::uuid, ${number}::bigint))`;
}

const TIMING_COLUMNS = ', expires_at, deliver_at';

function hasTiming({ expiresAt, deliverAt, delayMs }: EncodedMessage): boolean {
  return expiresAt !== null || deliverAt !== null || delayMs !== null;
}

function timingOf({ expiresAt, deliverAt, delayMs }: EncodedMessage): (string | null)[] {
  return [expiresAt, deliverAt, delayMs === null ? null : String(delayMs)];
}

/** A delay counts by the database's clock, as due times do. */
function timingSql(expiresAt: string, deliverAt: string, delayMs: string): string {
  return `${expiresAt}, coalesce(${deliverAt}, clock_timestamp() + ${delayMs} * interval '1 millisecond')`;
}

/**
 * An array in Postgres' own text form, which every driver passes on as it is; they differ in what they make of arrays.
 * https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
 */
export function arrayLiteral(values: readonly (string | null)[]): string {
  return `{${values.map((value) => (value === null ? 'NULL' : `"${value.replace(/["\\]/g, '\\$&')}"`)).join(',')}}`;
}

function hexOf(bytes: Uint8Array): string {
  return `\\x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`;
}
