import type pg from 'pg';
import type { Log } from '../broker/log.ts';

/** From which group to which, and which generation that one begins. */
export interface HandledCopy {
  /** Quoted. */
  readonly schema: string;
  readonly from: string;
  readonly to: string;
  readonly generation: number;
}

interface Window {
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  readonly next_offset: string;
  readonly until: string;
}

/** Records of one look into the log. */
const CHUNK = { maxRecords: 5_000, maxBytes: 16_000_000 };

/**
 * Copies, inside the transaction of `client`, the rows that say "handled" from one group to another: those of records between
 * each place and what owners may have begun, or had begun before the place was moved back. Those are named by the inbox and by the log. What was
 * handled in former generations, and so would be a replay, is so afterwards too. Returns how many of the present one there were.
 */
export async function copyHandled(client: pg.PoolClient, log: Log, copy: HandledCopy): Promise<number> {
  const { rows } = await client.query<Window>(
    `select topic, partition, generation, next_offset::text, greatest(reach, replay_until)::text as until
      from ${copy.schema}.consumer_cursor where group_name = $1 order by topic, partition`,
    [copy.from],
  );
  let handled = 0;
  for (const window of rows) {
    const stored = await storedIds(client, copy, window);
    if (stored.length > 0) handled += await copyRows(client, copy, window, stored);
    for await (const ids of idsIn(log, window)) handled += await copyRows(client, copy, window, ids);
  }
  return handled;
}

/** The message ids of the records there that are in the inbox: the log may not have them any more. */
async function storedIds(client: pg.PoolClient, { schema, from }: HandledCopy, window: Window): Promise<string[]> {
  const { topic, partition, next_offset, until } = window;
  const { rows } = await client.query<{ message_id: string }>(
    `select message_id from ${schema}.inbox where group_name = $1 and topic = $2 and partition = $3
      and record_offset >= $4 and record_offset < $5`,
    [from, topic, partition, next_offset, until],
  );
  return rows.map(({ message_id }) => message_id);
}

/** The message ids of the records there. A record that cannot be read yet can not have been handled either. */
async function* idsIn(log: Log, { topic, partition, next_offset, until }: Window): AsyncGenerator<string[]> {
  const ends = (await log.ends(topic)).find((each) => each.partition === partition);
  if (ends === undefined) return;
  const end = BigInt(until) < ends.end ? BigInt(until) : ends.end;
  let offset = BigInt(next_offset) > ends.start ? BigInt(next_offset) : ends.start;
  while (offset < end) {
    const records = await log.fetch([{ topic, partition, offset }], CHUNK);
    const last = records.at(-1);
    if (last === undefined) return;
    yield records.filter((record) => record.offset < end).map(({ messageId }) => messageId);
    offset = last.offset + 1n;
  }
}

async function copyRows(
  client: pg.PoolClient,
  { schema, from, to, generation }: HandledCopy,
  window: Window,
  ids: readonly string[],
): Promise<number> {
  const { rows } = await client.query<{ generation: number }>(
    `insert into ${schema}.processed_message (message_id, consumer, generation)
      select message_id, $2, case when generation = $4 then $3::int else $3 - 1 end from ${schema}.processed_message
      where message_id = any($5::uuid[]) and consumer = $1 and generation <= $4
      on conflict do nothing returning generation`,
    [from, to, generation, window.generation, ids],
  );
  return rows.filter((row) => row.generation === generation).length;
}
