import type pg from 'pg';
import type { Cluster } from '../../src/base/cluster.ts';
import { TailraceError } from '../../src/base/errors.ts';
import type { FetchOptions, FetchPosition, Log, PartitionEnds } from '../../src/broker/log.ts';
import { memoryLog, type MemoryLog } from '../../src/broker/memory/index.ts';
import type { LogRecord } from '../../src/broker/record.ts';
import { createConsumer, type Consumer, type ConsumerOptions, type HandlerContext } from '../../src/consumer/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { addEffect, Counted, EFFECT_TABLE, type Count } from './counted.ts';
import { until } from './kit.ts';

/** The way to a log that is elsewhere: it may be down, or lead to another log from now on. */
export class LogLine implements Log {
  readonly #cluster = { systemIdentifier: 'of the log', timeline: 1 };
  #gone = new AbortController();
  #target: Log;
  #isDown = false;
  cluster: Cluster | undefined;

  constructor(target: Log) {
    this.#target = target;
    this.cluster = this.#cluster;
  }

  get capabilities(): Log['capabilities'] {
    return this.#target.capabilities;
  }

  /** Nothing gets through until {@link LogLine.leadTo}. */
  cut(): void {
    this.#isDown = true;
    this.#gone.abort();
  }

  /** As after the promotion of a standby. */
  leadTo(target: Log): void {
    this.#target = target;
    this.#gone.abort();
    this.#gone = new AbortController();
    this.#isDown = false;
    this.cluster = { ...this.#cluster, timeline: (this.cluster?.timeline ?? 1) + 1 };
  }

  partitionCount(topic: string): Promise<number> {
    return this.#through((log) => log.partitionCount(topic));
  }

  ends(topic: string): Promise<PartitionEnds[]> {
    return this.#through((log) => log.ends(topic));
  }

  offsetsAt(topic: string, time: Date): Promise<FetchPosition[]> {
    return this.#through((log) => log.offsetsAt(topic, time));
  }

  fetch(positions: readonly FetchPosition[], options: FetchOptions = {}): Promise<LogRecord[]> {
    const { signal = new AbortController().signal } = options;
    const either = AbortSignal.any([signal, this.#gone.signal]);
    return this.#through((log) => log.fetch(positions, { ...options, signal: either }));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #through<Answer>(ask: (log: Log) => Promise<Answer>): Promise<Answer> {
    const gone = this.#gone.signal;
    if (this.#isDown) throw noAnswer();
    const answer = await ask(this.#target);
    if (gone.aborted) throw noAnswer();
    return answer;
  }
}

function noAnswer(): TailraceError {
  return new TailraceError('TIMEOUT', 'The log does not answer.', { retryable: true });
}

export type Then = (count: Count, context: HandlerContext) => unknown;

/** A log that is elsewhere, and a database for handlers. */
export class StoreScene implements AsyncDisposable {
  readonly database: TestDatabase;
  readonly source: MemoryLog;
  readonly line: LogLine;
  readonly #consumers: Consumer[] = [];

  private constructor(database: TestDatabase, partitions: number) {
    this.database = database;
    this.source = memoryLog({ partitions });
    this.line = new LogLine(this.source);
  }

  static async open({ partitions = 1 }: { partitions?: number } = {}): Promise<StoreScene> {
    const database = await createTestDatabase();
    await database.pool.query(EFFECT_TABLE);
    return new StoreScene(database, partitions);
  }

  get pool(): pg.Pool {
    return this.database.pool;
  }

  /** A member that writes an effect for each count, and then does something in the same transaction. */
  member(then: Then = () => undefined, options: Partial<ConsumerOptions> = {}): Consumer {
    const consumer = createConsumer({
      log: this.line,
      group: 'counting',
      database: this.pool,
      delivery: 'store-first',
      concurrency: 4,
      leaseMs: 300_000, // nobody loses it because the machine is slow
      heartbeatMs: 50,
      cursorIntervalMs: 50,
      retries: { backoff: { initialMs: 1, maxMs: 10 } },
      ...options,
    }).on(Counted, async ({ payload }, context) => {
      await addEffect(context.tx, payload, options.memberId);
      await then(payload, context);
    });
    this.#consumers.push(consumer);
    return consumer;
  }

  async rows<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<Row[]> {
    return (await this.pool.query<Row>(sql, values)).rows;
  }

  /** The numbers of each key, in the order of their effects. */
  async numbers(): Promise<Record<string, number[]>> {
    const numbers: Record<string, number[]> = {};
    for (const { key, n } of await this.rows<Count>('select key, n from effect order by id'))
      (numbers[key] ??= []).push(n);
    return numbers;
  }

  async untilEffects(count: number): Promise<void> {
    await until(async () => (await this.count('effect')) >= count);
  }

  /** Waits until the group has stored all records of all partitions below these offsets in all. */
  async untilStored(count: number, group = 'counting'): Promise<void> {
    await until(async () => {
      const sql =
        'select coalesce(sum(stored_to), 0)::int as stored from tailrace.consumer_cursor where group_name = $1';
      return ((await this.rows<{ stored: number }>(sql, [group]))[0]?.stored ?? 0) >= count;
    });
  }

  async count(table: string): Promise<number> {
    return (await this.rows<{ count: number }>(`select count(*)::int from ${table}`))[0]?.count ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#consumers.map((consumer) => consumer.stop()));
    await this.source.close();
    await this.database[Symbol.asyncDispose]();
  }
}

/** Handlers wait until it opens, or they are to give up. */
export function gate(): { readonly open: () => void; readonly pass: Then; readonly isReached: Promise<unknown> } {
  const opened = Promise.withResolvers<undefined>();
  const reached = Promise.withResolvers<undefined>();
  return {
    open: () => opened.resolve(undefined),
    isReached: reached.promise,
    pass: (_, { signal }) => {
      reached.resolve(undefined);
      const gaveUp = Promise.withResolvers<never>();
      signal.addEventListener('abort', () => gaveUp.reject(new Error('given up')), { once: true });
      if (signal.aborted) gaveUp.reject(new Error('given up'));
      return Promise.race([opened.promise, gaveUp.promise]);
    },
  };
}
