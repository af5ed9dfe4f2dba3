import type pg from 'pg';
import { postgresLog, type LogRecord, type LogWriter, type PostgresLog } from '../../../src/broker/postgres/index.ts';
import type { PostgresLogOptions } from '../../../src/broker/postgres/index.ts';
import { createTestDatabase, type TestDatabase } from '../../servers/test-database.ts';

/** A database with an outbox, and logs on it that are closed with it. */
export interface LogFixture extends AsyncDisposable {
  readonly database: TestDatabase;
  readonly pool: pg.Pool;
  /** Another log object, as another process would have. */
  openLog(options?: Partial<PostgresLogOptions>): PostgresLog;
  /** Puts rows into the outbox, with the payloads 1, 2, …; returns their positions. */
  insert(count: number, topic?: string): Promise<number[]>;
}

export async function createLogFixture(): Promise<LogFixture> {
  const database = await createTestDatabase();
  const { pool, connectionString } = database;
  const logs: PostgresLog[] = [];
  return {
    database,
    pool,
    openLog: (options = {}) => {
      const log = postgresLog({ connectionString, ...options });
      logs.push(log);
      return log;
    },
    insert: (count, topic = 'orders') => insertRows(pool, count, topic),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(logs.map((log) => log.close()));
      await database[Symbol.asyncDispose]();
    },
  };
}

/** Puts rows into the outbox through any connection. */
export async function insertRows(client: pg.Pool | pg.ClientBase, count: number, topic = 'orders'): Promise<number[]> {
  const result = await client.query<{ position: string }>(
    `insert into tailrace.outbox (message_id, topic, key, type, payload)
      select tailrace.uuid_v7(), $2, 'key-' || n, 'OrderPlaced', n::text::json from generate_series(1, $1::int) n
      returning position`,
    [count, topic],
  );
  return result.rows.map(({ position }) => Number(position));
}

/** Holds the right to append for long enough not to be in the way, however slow the machine is. */
export function acquire(log: PostgresLog, options: { holder?: string; leaseMs?: number } = {}): Promise<LogWriter> {
  const { holder = 'test', leaseMs = 3_600_000 } = options;
  return log.acquireWriter({ holder, leaseMs, signal: new AbortController().signal });
}

/** One append of ids to one partition. */
export async function appendTo(
  writer: LogWriter,
  partition: number,
  ids: readonly number[],
  progress = 'p',
): Promise<void> {
  await writer.append({ appends: [{ topic: 'orders', partition, ids }], progress });
}

/** What the log holds, by partition of the topic `orders`, from the tables. */
export async function entriesOf(
  pool: pg.Pool,
): Promise<{ partition: number; base: number; seq: number; ids: number[] }[]> {
  const result = await pool.query<{ partition: number; base: string; seq: string; ids: string[] }>(
    `select p.partition, e.base, e.seq, e.ids from tailrace.log_entry e join tailrace.log_partition p on p.id = e.partition
      where p.topic = 'orders' order by p.partition, e.base`,
  );
  return result.rows.map(({ partition, base, seq, ids }) => ({
    partition,
    base: Number(base),
    seq: Number(seq),
    ids: ids.map(Number),
  }));
}

/** The ids of each partition in order of their offsets; throws where offsets are not dense. */
export async function idsByPartition(pool: pg.Pool): Promise<Map<number, number[]>> {
  const all = new Map<number, number[]>();
  for (const { partition, base, ids } of await entriesOf(pool)) {
    const before = all.get(partition) ?? [];
    if (base !== before.length)
      throw new Error(`partition ${partition}: an entry at ${base}, expected ${before.length}`);
    all.set(partition, [...before, ...ids]);
  }
  return all;
}

export function payloadsOf(records: readonly LogRecord[]): (string | null)[] {
  return records.map(({ payload }) => payload);
}

/** Resolves once `condition` gives something other than undefined. Asks over and over: what it asks takes its time. */
export async function until<Result>(condition: () => Promise<Result | undefined>): Promise<Result> {
  for (;;) {
    const result = await condition();
    if (result !== undefined) return result;
  }
}
