import { TailraceError } from '../base/errors.ts';
import { describe } from '../message/fields.ts';
import { encodeHeaders } from '../message/headers.ts';
import type { Headers } from '../message/message.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import { GROUP_CHANNEL } from './group-tables.ts';
import { shown, unknownName } from './option-checks.ts';

/** Where parked messages are: a `pg.Pool`, a client, or whatever answers queries as they do. */
export interface ParkedDatabase {
  query(text: string, values: unknown[]): Promise<{ readonly rows: unknown[] }>;
}

/** Which messages that groups have set aside. What is left out narrows nothing down. */
export interface DeadLetterFilter {
  readonly group?: string;
  readonly topic?: string;
  readonly partition?: number;
  readonly offset?: bigint;
  readonly type?: string;
  /** Such as `HANDLER_FAILED` or `EXPIRED`; `UNHANDLED_TYPE` for those that wait for a handler. */
  readonly reason?: string;
  readonly key?: string;
}

/** What every act on dead letters takes. */
export interface DeadLetterOptions {
  readonly database: ParkedDatabase;
  /** @defaultValue 'tailrace' */
  readonly schema?: string;
  /** Who does it, for the audit. @defaultValue the database's session user */
  readonly actor?: string;
  /** Changes nothing, and answers what would be changed. @defaultValue false */
  readonly dryRun?: boolean;
}

/** A message that was acted on. */
export interface DeadLetterPlace {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly messageId: string;
  readonly type: string;
  readonly key: string | null;
  readonly reason: string;
}

/** What takes the place of a message's content. */
export interface DeadLetterEdit {
  /** JSON text. @defaultValue as it is */
  readonly payload?: string;
  /** All of them. @defaultValue as they are */
  readonly headers?: Headers;
}

/**
 * Lets groups handle dead letters again, with fresh attempts, at once: those of a key in their order, and what lines up
 * behind them after them. Also what waits for a handler of its type. The audit keeps each row as it was. Messages that are
 * being handled at this moment are left out.
 *
 * @returns those that will be handled, in the order of their places.
 * @throws TailraceError `INVALID_OPTION`.
 */
export function retryDeadLetters(
  filter: DeadLetterFilter,
  options: DeadLetterOptions,
): Promise<readonly DeadLetterPlace[]> {
  return act('retry', filter, options, `update {parked} p set ${AGAIN}`);
}

/**
 * Replaces the content of one dead letter, and lets its group handle it again, as {@link retryDeadLetters} does. The message
 * keeps its id, its key and its place. The new payload is not checked against the schema of its definition, which only the
 * code of the application knows.
 *
 * @throws TailraceError `INVALID_PAYLOAD`: not JSON; `INVALID_HEADER`; `INVALID_OPTION`, also where the filter does not name
 * one message.
 */
export async function editAndRetryDeadLetter(
  filter: Required<Pick<DeadLetterFilter, 'group' | 'topic' | 'partition' | 'offset'>>,
  edit: DeadLetterEdit,
  options: DeadLetterOptions,
): Promise<readonly DeadLetterPlace[]> {
  assertActable('edit', filter, options);
  assertOneLetter(filter);
  assertEdit(edit);
  const { payload, headers } = edit;
  if (payload !== undefined) assertJson(payload);
  const text = headers === undefined ? null : encodeHeaders(headers, 'a dead letter');
  const sql = `update {parked} p set ${AGAIN}, payload = coalesce($11::json, p.payload), headers = coalesce($12::json, p.headers),
    payload_bytes = case when $11::json is null then p.payload_bytes end,
    reason = case when $11::json is null then p.reason else 'HANDLER_FAILED' end`;
  return act('edit', filter, options, sql, [payload ?? null, text]);
}

/**
 * Removes dead letters for good: they count as handled, and what lines up behind them goes on. The audit keeps them.
 *
 * @returns those that are gone.
 * @throws TailraceError `INVALID_OPTION`.
 */
export function discardDeadLetters(
  filter: DeadLetterFilter,
  options: DeadLetterOptions,
): Promise<readonly DeadLetterPlace[]> {
  return act('discard', filter, options, 'delete from {parked} p using target t');
}

const AGAIN = `dead = false, attempts = 0, crashes = 0, running = false, due_at = clock_timestamp(), revision = p.revision + 1,
    blocks = p.key is not null and p.deliver_at is null,
    expires_at = case when p.reason = 'EXPIRED' then null else p.expires_at end`;

interface PlaceRow {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly offset: string;
  readonly messageId: string;
  readonly type: string;
  readonly key: string | null;
  readonly reason: string;
}

/** Waits for nothing but an operator: dead, or of a type without a handler. */
const WAITS = '(p.dead or (p.due_at is null and not p.blocks))';
const SAME_ROW = `p.group_name = t.group_name and p.topic = t.topic and p.partition = t.partition
        and p.record_offset = t.record_offset and p.generation = t.generation`;
const TARGET = `select p.* from {parked} p where ${WAITS} and ($1::text is null or p.group_name = $1)
        and ($2::text is null or p.topic = $2) and ($3::int is null or p.partition = $3)
        and ($4::bigint is null or p.record_offset = $4) and ($5::text is null or p.type = $5)
        and ($6::text is null or p.reason = $6) and ($7::text is null or p.key = $7)`;
const PLACE_COLUMNS = `group_name as "group", topic, partition, record_offset::text as "offset", message_id as "messageId",
      type, key, reason`;

/** One statement: the change, its audit, and the word to the members that own the partitions. */
async function act(
  action: 'retry' | 'edit' | 'discard',
  filter: DeadLetterFilter,
  options: DeadLetterOptions,
  change: string,
  more: readonly unknown[] = [],
): Promise<readonly DeadLetterPlace[]> {
  assertActable(action, filter, options);
  const { group, topic, partition, offset, type, reason, key } = filter;
  const { database, schema = DEFAULT_SCHEMA, actor, dryRun = false } = options;
  const quoted = quoteSchema(schema);
  const given = [group, topic, partition, offset?.toString(), type, reason, key].map((value) => value ?? null);
  const order = 'order by group_name, topic, partition, record_offset';
  const from = action === 'discard' ? 'where' : 'from target t where';
  const isDiscarded = action === 'discard';
  const sql = dryRun
    ? `select ${PLACE_COLUMNS} from (${TARGET}) t ${order}`
    : `with target as materialized (${TARGET} for update skip locked),
      changed as (${change} ${from} ${SAME_ROW} returning p.*),
      audited as (
        insert into ${quoted}.parked_audit (actor, action, group_name, topic, partition, record_offset, generation, message_id,
          before, after)
        select coalesce($8::text, session_user), $9, p.group_name, p.topic, p.partition, p.record_offset, p.generation, p.message_id,
          row_to_json(t), ${isDiscarded ? 'null' : 'row_to_json(p)'}
        from changed p join target t on ${SAME_ROW}
      ),
      told as materialized (
        select pg_notify($10, json_build_object('group', group_name, 'parked', true)::text)
        from (select distinct group_name from changed) g
      )
      select ${PLACE_COLUMNS} from changed cross join (select count(*) as members from told) told ${order}`;
  const values = dryRun ? given : [...given, actor ?? null, action, GROUP_CHANNEL, ...more];
  const { rows } = await database.query(sql.replaceAll('{parked}', `${quoted}.parked_message`), values);
  return (rows as PlaceRow[]).map((row) => ({ ...row, offset: BigInt(row.offset) }));
}

const FILTERS = {
  group: 'text',
  topic: 'text',
  partition: 'number',
  offset: 'bigint',
  type: 'text',
  reason: 'text',
  key: 'text',
} satisfies Record<keyof DeadLetterFilter, keyof typeof EXPECTED>;

/** What a filter may be, and how that is said. */
const EXPECTED = {
  text: { is: (found: unknown) => typeof found === 'string', expected: 'a text' },
  number: { is: (found: unknown) => Number.isInteger(found), expected: 'a whole number' },
  bigint: { is: (found: unknown) => typeof found === 'bigint', expected: 'a bigint, such as 5n' },
};

const OPTIONS: readonly string[] = Object.keys({
  database: true,
  schema: true,
  actor: true,
  dryRun: true,
} satisfies Record<keyof DeadLetterOptions, true>);

/** What was misspelt, or is undefined by mistake, would act on more than was meant, or act where nothing was to be changed. */
function assertActable(action: string, filter: unknown, options: unknown): void {
  assertFilter(action, filter);
  const { database } = (options ?? {}) as Partial<DeadLetterOptions>;
  if (typeof database?.query !== 'function') {
    throw invalid(action, 'database has no method query. Expected options with a pg.Pool: { database: pool }.');
  }
  assertKnown(action, 'option', options as DeadLetterOptions, OPTIONS);
  const { dryRun } = options as DeadLetterOptions;
  if (dryRun === undefined || typeof dryRun === 'boolean') return;
  throw invalid(action, `dryRun is ${shown(dryRun)}. Expected true or false.`);
}

function assertFilter(action: string, filter: unknown): void {
  const names = Object.keys(FILTERS);
  if (typeof filter !== 'object' || filter === null) {
    const expected = `an object with any of ${names.join(', ')}; {} for all`;
    throw invalid(action, `the filter is ${shown(filter)}. Expected ${expected}.`);
  }
  assertKnown(action, 'filter', filter, names);
  for (const [name, found] of Object.entries(filter) as [keyof DeadLetterFilter, unknown][]) {
    const { is, expected } = EXPECTED[FILTERS[name]];
    if (is(found)) continue;
    throw invalid(action, `${name} is ${shown(found)}. Expected ${expected}; leave it out to narrow nothing down.`);
  }
}

/** Or the new content would be that of many. */
function assertOneLetter(filter: DeadLetterFilter): void {
  const missing = (['group', 'topic', 'partition', 'offset'] as const).find((name) => filter[name] === undefined);
  if (missing === undefined) return;
  throw invalid('edit', `the filter has no ${missing}. Expected group, topic, partition and offset of one message.`);
}

function assertEdit(edit: unknown): void {
  const names = Object.keys({ payload: true, headers: true } satisfies Record<keyof DeadLetterEdit, true>);
  if (typeof edit !== 'object' || edit === null) {
    throw invalid('edit', `the new content is ${describe(edit)}. Expected an object with ${names.join(', ')}.`);
  }
  assertKnown('edit', 'content', edit, names);
  const { payload } = edit as Partial<Record<keyof DeadLetterEdit, unknown>>;
  if (payload === undefined || typeof payload === 'string') return;
  throw new TailraceError(
    'INVALID_PAYLOAD',
    `The new payload of a dead letter is ${describe(payload)}. Expected JSON text: JSON.stringify(payload).`,
  );
}

function assertKnown(action: string, what: string, given: object, known: readonly string[]): void {
  const unknown = unknownName(given, known);
  if (unknown !== undefined)
    throw invalid(action, `there is no ${what} ${unknown}. Expected any of ${known.join(', ')}.`);
}

function invalid(action: string, problem: string): TailraceError {
  return new TailraceError('INVALID_OPTION', `Dead letters, ${action}: ${problem}`);
}

function assertJson(text: string): void {
  try {
    JSON.parse(text);
  } catch {
    throw new TailraceError('INVALID_PAYLOAD', 'The new payload of a dead letter is not JSON. Expected JSON text.');
  }
}
