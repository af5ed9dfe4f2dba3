import type pg from 'pg';
import { pause } from '../base/signal.ts';
import { askForDeadLetters, type DeadLetterAction, readRelayStanding } from '../broker/postgres/ask.ts';
import { quoteSchema } from '../postgres/schema-name.ts';

/** A message that the relay could not route. What the outbox says of it is null where the row is not there. */
export interface RelayLetterRow {
  /** Its place in the outbox. */
  readonly position: string;
  readonly topic: string;
  readonly id: string | null;
  readonly type: string | null;
  readonly kind: string | null;
  readonly key: string | null;
  readonly reason: string;
  readonly error: string;
  readonly attempts: number;
  readonly occurredAt: Date | null;
  readonly setAsideAt: Date;
  /** `retry` or `discard`, until the relay has done it. */
  readonly asked: DeadLetterAction | null;
  readonly askedBy: string | null;
  readonly askedAt: Date | null;
}

/** One of them with its content; exactly one of the last two is set. */
export interface WholeRelayLetterRow extends RelayLetterRow {
  readonly headers: Readonly<Record<string, string>> | null;
  readonly payload: string | null;
  readonly bytes: Buffer | null;
}

const COLUMNS = `d.position::text, d.topic, o.message_id as id, o.type, o.kind, o.key, d.reason, d.error, d.attempts,
  o.occurred_at as "occurredAt", d.set_aside_at as "setAsideAt", d.asked, d.asked_by as "askedBy", d.asked_at as "askedAt"`;

const fromTables = (schema: string): string =>
  `from ${quoteSchema(schema)}.relay_dead_letter d left join ${quoteSchema(schema)}.outbox o on o.position = d.position`;

/** Whether there are such tables that this role may read: consumers may not, or live in another database. */
export async function mayReadRelayLetters(client: pg.Client, schema: string): Promise<boolean> {
  const { rows } = await client.query<{ may: boolean | null }>(
    `select has_table_privilege(to_regclass($1), 'select') and has_table_privilege(to_regclass($2), 'select') as may`,
    [`${quoteSchema(schema)}.relay_dead_letter`, `${quoteSchema(schema)}.outbox`],
  );
  return rows[0]?.may === true;
}

/** The newest first. */
export async function readRelayLetters(
  client: pg.Client,
  schema: string,
  topic: string | undefined,
  limit: number,
): Promise<RelayLetterRow[]> {
  const { rows } = await client.query<RelayLetterRow>(
    `select ${COLUMNS} ${fromTables(schema)} where $1::text is null or d.topic = $1 order by d.position desc limit $2`,
    [topic ?? null, limit],
  );
  return rows;
}

export async function readRelayLetter(
  client: pg.Client,
  schema: string,
  position: string,
): Promise<WholeRelayLetterRow | undefined> {
  const { rows } = await client.query<WholeRelayLetterRow>(
    `select ${COLUMNS}, o.headers, o.payload::text as payload, o.payload_bytes as bytes ${fromTables(schema)}
      where d.position = $1`,
    [position],
  );
  return rows[0];
}

/** Which dead letters of the relay are meant. */
export interface Choice {
  readonly positions: readonly string[];
  readonly topic: string | undefined;
}

/** What became of what was asked. */
export interface AskOutcome {
  /** The relay has done it. */
  readonly done: readonly string[];
  /** The relay has tried in vain: it is a dead letter still. */
  readonly failed: readonly { readonly position: string; readonly reason: string; readonly error: string }[];
  /** Still to be done by the relay, or by the next one. */
  readonly waiting: readonly string[];
  /** No dead letters of the relay, or something was asked for them before. */
  readonly refused: readonly string[];
  readonly isRelayRunning: boolean;
}

const LOOK_INTERVAL_MS = 100;

/** Asks, and waits until the relay has done it, but not for longer than `waitMs`, nor for a relay to come. */
export async function askAndWait(
  client: pg.Client,
  schema: string,
  action: DeadLetterAction,
  choice: Choice,
  waitMs: number,
): Promise<AskOutcome> {
  const wanted = await positionsOf(client, schema, choice);
  const asked = await askForDeadLetters(client, schema, action, wanted);
  const endsAt = performance.now() + waitMs;
  for (;;) {
    const isRelayRunning = (await readRelayStanding(client, schema))?.isHeld === true;
    const { rows } = await client.query<Pick<RelayLetterRow, 'position' | 'reason' | 'error' | 'asked'>>(
      `select position::text, reason, error, asked from ${quoteSchema(schema)}.relay_dead_letter
        where position = any($1::bigint[]) order by relay_dead_letter.position`,
      [asked],
    );
    const waiting = rows.filter((row) => row.asked !== null).map(({ position }) => position);
    if (waiting.length === 0 || !isRelayRunning || performance.now() >= endsAt) {
      const left = new Set(rows.map(({ position }) => position));
      return {
        done: asked.filter((position) => !left.has(position)),
        failed: rows
          .filter((row) => row.asked === null)
          .map(({ position, reason, error }) => ({ position, reason, error })),
        waiting,
        refused: choice.positions.filter((position) => !asked.includes(position)),
        isRelayRunning,
      };
    }
    await pause(LOOK_INTERVAL_MS);
  }
}

/** Those that are named, or else all of a topic, or all, for which nothing was asked yet. */
async function positionsOf(
  client: pg.Client,
  schema: string,
  { positions, topic }: Choice,
): Promise<readonly string[]> {
  if (positions.length > 0) return positions;
  const { rows } = await client.query<{ position: string }>(
    `select position::text from ${quoteSchema(schema)}.relay_dead_letter
      where asked is null and ($1::text is null or topic = $1)`,
    [topic ?? null],
  );
  return rows.map(({ position }) => position);
}
