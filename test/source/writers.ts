import type pg from 'pg';

/** A small generator of random numbers in [0, 1), from a seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const PUBLISH = `with next as (update counter set n = n + 1 where key = $1 returning n)
  insert into tailrace.outbox (message_id, topic, key, type, payload)
  select gen_random_uuid(), $2, $1, 'Counted', to_json(n) from next`;

export async function createCounters(pool: pg.Pool, keys: number): Promise<void> {
  await pool.query('create table counter (key text primary key, n bigint not null default 0)');
  await pool.query(`insert into counter (key) select 'key-' || n from generate_series(1, $1) n`, [keys]);
}

/**
 * Runs business transactions from several connections: one to four messages each, some with savepoints that are rolled
 * back, some rolled back whole. Keys are taken in order, so that no deadlock comes about.
 */
export async function writeAll(
  pool: pg.Pool,
  options: { readonly writers: number; readonly transactions: number; readonly keys: number; readonly seed: number },
): Promise<void> {
  await Promise.all(
    Array.from({ length: options.writers }, async (_, writer) => {
      const random = randomFrom(options.seed * 1000 + writer);
      const client = await pool.connect();
      try {
        for (let n = 0; n < options.transactions; n++) await transact(client, random, options.keys);
      } finally {
        client.release();
      }
    }),
  );
}

async function transact(client: pg.ClientBase, random: () => number, keys: number): Promise<void> {
  const chosen = new Set(Array.from({ length: 1 + Math.floor(random() * 4) }, () => 1 + Math.floor(random() * keys)));
  await client.query('begin');
  for (const key of [...chosen].sort((a, b) => a - b)) {
    const values = [`key-${key}`, `topic-${key % 2}`];
    const undone = random() < 0.15;
    if (undone) await client.query('savepoint undo');
    await client.query(PUBLISH, values);
    if (undone) await client.query('rollback to savepoint undo');
  }
  await client.query(random() < 0.1 ? 'rollback' : 'commit');
}

/**
 * Runs {@link writeAll} again and again, each time from another seed, until `use` has ended: what `use` waits for to happen
 * while there are writers does not depend on how fast they are.
 */
export async function whileWriting(
  pool: pg.Pool,
  options: { readonly writers: number; readonly transactions: number; readonly keys: number; readonly seed: number },
  use: () => Promise<void>,
): Promise<void> {
  let isOver = false;
  const hasEnded = (): boolean => isOver;
  const writing = (async (): Promise<void> => {
    for (let round = 0; !hasEnded(); round++) await writeAll(pool, { ...options, seed: options.seed + round * 7919 });
  })();
  try {
    await use();
  } finally {
    isOver = true;
    await writing;
  }
}
