import type pg from 'pg';
import { vi } from 'vitest';
import { isTailraceError } from '../../src/base/errors.ts';
import type { Logger } from '../../src/base/logger.ts';
import type { LogWriter } from '../../src/broker/log.ts';
import { keyHash, partitionAmong } from '../../src/broker/partitioner.ts';
import { postgresLog, type PostgresLog } from '../../src/broker/postgres/index.ts';
import {
  createConsumer,
  type Consumer,
  type ConsumerOptions,
  type DeliveryContext,
  type PlainConsumerOptions,
} from '../../src/consumer/index.ts';
import type { EventMessage } from '../../src/message/message.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { type Count, Counted, type Effect, EFFECT_TABLE } from './counted.ts';

/** Counts 1 to `each` of every key, interleaved. */
export function counts(keys: readonly string[], each: number, first = 1): EventMessage<Count>[] {
  return Array.from({ length: each }, (_, at) => keys.map((key) => Counted({ key, n: first + at }))).flat();
}

/** A database, a home log in it, and a stand-in for the relay that appends what was published. */
export class Stream implements AsyncDisposable {
  readonly database: TestDatabase;
  readonly log: PostgresLog;
  readonly #outbox = createOutbox();
  readonly #consumers: Consumer<unknown>[] = [];
  readonly #release = new AbortController();
  #writer: LogWriter | undefined;
  #last = 0;

  private constructor(database: TestDatabase, log: PostgresLog) {
    this.database = database;
    this.log = log;
  }

  static async open({ partitions = 4 }: { partitions?: number } = {}): Promise<Stream> {
    const database = await createTestDatabase();
    await database.pool.query(EFFECT_TABLE);
    const log = postgresLog({ connectionString: database.connectionString, partitions });
    return new Stream(database, log);
  }

  get pool(): pg.Pool {
    return this.database.pool;
  }

  get #quick(): Pick<ConsumerOptions, 'log' | 'group' | 'database'> & Partial<ConsumerOptions> {
    return {
      log: this.log,
      group: 'counting',
      database: this.pool,
      concurrency: 4,
      leaseMs: 300_000, // nobody loses it because the machine is slow
      heartbeatMs: 50,
      cursorIntervalMs: 50,
    };
  }

  /** A consumer that is quick to notice, and stopped with the stream. */
  consumer(options: Partial<ConsumerOptions> = {}): Consumer {
    const consumer = createConsumer({
      ...this.#quick,
      retries: { backoff: { initialMs: 1, maxMs: 10 } },
      ...options,
    });
    this.#consumers.push(consumer);
    return consumer;
  }

  /** The same, whose handlers have no transaction. */
  plainConsumer(
    options: Partial<PlainConsumerOptions> & Pick<PlainConsumerOptions, 'delivery'>,
  ): Consumer<DeliveryContext> {
    const consumer = createConsumer({ ...this.#quick, ...options });
    this.#consumers.push(consumer);
    return consumer;
  }

  /** Publishes in one transaction and appends to the log. */
  async publish(...events: EventMessage[]): Promise<void> {
    const client = await this.pool.connect();
    try {
      await client.query('begin');
      await this.#outbox.publish(client, events);
      await client.query('commit');
    } finally {
      client.release();
    }
    await this.append();
  }

  /** Appends what the outbox holds beyond what was appended. */
  async append(): Promise<void> {
    const writer = await this.#ownWriter();
    const { rows } = await this.pool.query<{ position: string; topic: string; key: string | null }>(
      'select position, topic, key from tailrace.outbox where position > $1 order by position',
      [this.#last],
    );
    await this.#route(writer, rows).catch(async (error: unknown) => {
      if (!isTailraceError(error, 'PARTITIONS_CHANGED')) throw error;
      await this.#route(writer, rows);
    });
  }

  async #route(
    writer: LogWriter,
    rows: readonly { readonly position: string; readonly topic: string; readonly key: string | null }[],
  ): Promise<void> {
    const appends = new Map<string, { topic: string; partition: number; ids: number[] }>();
    for (const { position, topic, key } of rows) {
      const counts = await writer.partitionCounts(topic);
      const partition = key === null ? Number(position) % counts.at(-1)! : partitionAmong(keyHash(key), counts);
      const append = appends.get(`${topic}/${partition}`) ?? { topic, partition, ids: [] };
      append.ids.push(Number(position));
      appends.set(`${topic}/${partition}`, append);
      this.#last = Number(position);
    }
    await writer.append({ appends: [...appends.values()], progress: String(this.#last) });
  }

  async effects(): Promise<Effect[]> {
    return (await this.pool.query<Effect>('select key, n, member from effect order by id')).rows;
  }

  /** The numbers of each key, in the order of their effects. */
  async numbers(): Promise<Record<string, number[]>> {
    const numbers: Record<string, number[]> = {};
    for (const { key, n } of await this.effects()) (numbers[key] ??= []).push(n);
    return numbers;
  }

  /** Waits until there are that many effects, or more. */
  async untilEffects(count: number): Promise<void> {
    await until(async () => {
      const { rows } = await this.pool.query<{ count: number }>('select count(*)::int from effect');
      return (rows[0]?.count ?? 0) >= count;
    });
  }

  async rows<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<Row[]> {
    return (await this.pool.query<Row>(sql, values)).rows;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#consumers.map((consumer) => consumer.stop()));
    this.#release.abort();
    await this.log.close();
    await this.database[Symbol.asyncDispose]();
  }

  async #ownWriter(): Promise<LogWriter> {
    this.#writer ??= await this.log.acquireWriter({ holder: 'test', leaseMs: 3_600_000, signal: this.#release.signal });
    return this.#writer;
  }
}

/** Waits until something holds that nobody signals. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  await vi.waitFor(
    async () => {
      if (!(await holds())) throw new Error(`Waited in vain until ${holds.toString()}`);
    },
    { timeout: 100_000, interval: 5 },
  );
}

/** 1 to `last`. */
export function range(last: number): number[] {
  return Array.from({ length: last }, (_, at) => at + 1);
}

/** A logger that remembers. */
export function listeningLogger(): Logger & { readonly lines: { level: string; message: string; fields: object }[] } {
  const lines: { level: string; message: string; fields: object }[] = [];
  const at = (level: string) => (fields: object, message: string) => void lines.push({ level, message, fields });
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
