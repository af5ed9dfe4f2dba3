import type pg from 'pg';
import { overriding } from '../overriding.ts';

/** Answers the statement that is sent in place of one; as it is, if nothing is wrong with it. */
type Rewrite = (text: string, pool: pg.Pool) => string | Promise<string>;

/**
 * A pool whose clients send other statements than they are asked to. They are of the kind that takes statements only as text.
 */
function rewriting(pool: pg.Pool, rewrite: Rewrite): pg.Pool {
  const clients = new WeakMap<pg.PoolClient, pg.PoolClient>();
  const wrap = (client: pg.PoolClient): pg.PoolClient => {
    const ask = client.query.bind(client) as (...args: readonly unknown[]) => unknown;
    const query = async (asked: unknown, ...rest: readonly unknown[]): Promise<unknown> => {
      if (typeof asked === 'string') return ask(await rewrite(asked, pool), ...rest);
      if (!isConfig(asked)) return ask(asked, ...rest);
      return ask({ ...asked, text: await rewrite(asked.text, pool) }, ...rest);
    };
    const members: object = { query, connection: undefined };
    return overriding(client, members);
  };
  return overriding(pool, {
    connect: (async () => {
      const client = await pool.connect();
      const wrapped = clients.get(client) ?? wrap(client);
      clients.set(client, wrapped);
      return wrapped;
    }) as pg.Pool['connect'],
  });
}

function isConfig(asked: unknown): asked is { readonly text: string } {
  return typeof asked === 'object' && asked !== null && 'text' in asked && typeof asked.text === 'string';
}

const PROCESSED =
  /insert into \S+processed_message \([^)]*\)\s+(select [\s\S]*?)\s+on conflict do nothing returning message_id::text/;

/** Asks nobody whether a message was handled before. */
export function noProcessedRow(pool: pg.Pool): pg.Pool {
  return rewriting(pool, (text) =>
    text.replace(PROCESSED, 'select id::text as message_id from ($1) v (id, consumer, generation)'),
  );
}

/** Writes down that messages are handled before they are, in a transaction of its own. */
export function processedRowInOtherTransaction(pool: pg.Pool): pg.Pool {
  return rewriting(pool, async (text) => {
    const [insert] = PROCESSED.exec(text) ?? [];
    if (insert === undefined) return text;
    const { rows } = await pool.query<{ message_id: string }>(insert);
    const ids = rows.map(({ message_id }) => `'${message_id}'`).join(', ');
    return text.replace(PROCESSED, `select unnest(array[${ids}]::text[]) as message_id`);
  });
}

/** Stores as finished what is in the log. */
export function cursorAhead(pool: pg.Pool): pg.Pool {
  const end = `select coalesce(max(e.base + e.count), 0) from tailrace.log_entry e
    join tailrace.log_partition p on p.id = e.partition where p.topic = c.topic and p.partition = c.partition`;
  return rewriting(pool, (text) =>
    text.replace(
      /(update \S+consumer_cursor c set next_offset = greatest\(c\.next_offset, v\.next_offset)\)/,
      `$1, (${end}))`,
    ),
  );
}

/** Commits without asking whose the partition is. The text still tells that it is a commit. */
export function noGroupFence(pool: pg.Pool): pg.Pool {
  return rewriting(pool, (text) =>
    text.replace(
      /select coalesce\(\s*\(select[^()]*\),\s+\S+assert_assignment\(/,
      `select concat('assert_assignment(', (`,
    ),
  );
}

/** Takes the parked messages of a key from their end. */
export function retryOutOfOrder(pool: pg.Pool): pg.Pool {
  return rewriting(pool, (text) =>
    /from \S+parked_message/.test(text)
      ? text.replace(/order by record_offset\b/, 'order by record_offset desc')
      : text,
  );
}

/** Answers as if an attempt was recorded, the first one. */
export function attemptsInMemory(pool: pg.Pool): pg.Pool {
  return rewriting(pool, (text) =>
    text.replace(
      /^with known as \(select record_offset from \S+suspect_attempt [\s\S]*$/,
      `select unnest($4::text[]) as record_offset, false as is_known
         from (select $1::text, $2::text, $3::int, $5::int, $6::uuid[]) asked`,
    ),
  );
}
