import { TailraceError } from '../../base/errors.ts';
import type { Cluster } from '../../base/cluster.ts';
import { LONGEST_TIMER_MS } from '../../base/signal.ts';
import { decodeHeaders } from '../../message/headers.ts';
import type { LogCapability } from '../capabilities.ts';
import { assertTime, invalid } from '../checks.ts';
import type {
  FetchOptions,
  FetchPosition,
  HomeLog,
  LogWriter,
  OutboxHeaders,
  PartitionEnds,
  WriterOptions,
} from '../log.ts';
import type { LogRecord } from '../record.ts';
import { channelOf } from './channels.ts';
import { Fetcher } from './fetcher.ts';
import { offsetAt, offsetsAtSql } from './offsets-at.ts';
import { openWriter } from './open-writer.ts';
import { resolveOptions, type PostgresLogOptions, type ResolvedOptions } from './options.ts';
import { ReadPool } from './read-pool.ts';
import { Topics, type TopicSettings } from './topics.ts';
import { WakeUps } from './wake-ups.ts';

/** The home log in Postgres. */
export interface PostgresLog extends HomeLog {
  /**
   * Creates a topic, ahead of its first message. Does nothing if it exists with as many partitions.
   *
   * @throws TailraceError `INVALID_TOPIC`; `INVALID_OPTION`: not 1 to 10,000 partitions, it exists with another number, or a
   * setting that cannot be.
   */
  createTopic(name: string, partitions: number, settings?: TopicSettings): Promise<void>;
  /**
   * Gives a topic more partitions, up to `partitions` in all, while relays and consumers run. Records of a key stay in
   * order: the change comes between two appends, and a group reads an added partition only after it has come, in all
   * partitions that were there before, to where these ended then.
   *
   * @throws TailraceError `UNKNOWN_TOPIC`; `INVALID_OPTION`: not up to 10,000, or not more than the topic has.
   */
  addPartitions(name: string, partitions: number): Promise<void>;
  /**
   * Changes what a topic keeps. What is to be removed leaves with the next round of maintenance.
   *
   * @throws TailraceError `UNKNOWN_TOPIC`, `INVALID_OPTION`.
   */
  alterTopic(name: string, settings: TopicSettings): Promise<void>;
}

/**
 * Opens the home log that lives in the outbox's own database. Connects when it is first used.
 *
 * @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`.
 */
export function postgresLog(options: PostgresLogOptions): PostgresLog {
  return new PostgresHomeLog(resolveOptions(options));
}

class PostgresHomeLog implements PostgresLog {
  readonly capabilities: ReadonlySet<LogCapability> = new Set(['time-seek', 'compaction']);
  readonly #options: ResolvedOptions;
  readonly #closing = new AbortController();
  readonly #pool: ReadPool;
  readonly #topics: Topics;
  readonly #wakeUps: WakeUps;
  readonly #fetcher: Fetcher;
  readonly #writers = new Set<LogWriter>();
  #closed: Promise<void> | undefined;

  constructor(options: ResolvedOptions) {
    const { connectionString, schema, quotedSchema, logger } = options;
    this.#options = options;
    this.#pool = new ReadPool(connectionString, schema, logger);
    this.#topics = new Topics(this.#pool, quotedSchema);
    this.#wakeUps = new WakeUps({ ...options, channel: channelOf(schema, 'log') });
    this.#fetcher = new Fetcher({
      pool: this.#pool,
      topics: this.#topics,
      wakeUps: this.#wakeUps,
      quotedSchema,
      closing: this.#closing.signal,
    });
  }

  get cluster(): Cluster | undefined {
    return this.#pool.cluster;
  }

  async partitionCount(topic: string): Promise<number> {
    this.#assertOpen();
    return (await this.#topics.load(topic))?.length ?? 0;
  }

  async ends(topic: string): Promise<PartitionEnds[]> {
    this.#assertOpen();
    const rows = await this.#pool.query(
      `select p.partition,
          greatest(p.start, (select e.base from ${this.#entry} e where e.partition = p.id order by e.base limit 1)),
          coalesce((select e.base + e.count from ${this.#entry} e where e.partition = p.id order by e.base desc limit 1), 0),
          (select array_to_string(g.switch_offsets, ',') from ${this.#options.quotedSchema}.log_topic_growth g
            where g.topic = p.topic and g.partitions_before <= p.partition order by g.partitions_before desc limit 1)
        from ${this.#partition} p where p.topic = $1 order by p.partition`,
      [topic],
    );
    return rows.map(([partition, start, end, opensAfter]) => ({
      partition: Number(partition),
      start: BigInt(start ?? 0),
      end: BigInt(end ?? 0),
      ...(opensAfter != null && { opensAfter: opensAfter.split(',').map(BigInt) }),
    }));
  }

  async offsetsAt(topic: string, time: Date): Promise<FetchPosition[]> {
    this.#assertOpen();
    assertTime(time);
    const rows = await this.#pool.query(offsetsAtSql(this.#options.quotedSchema), [topic, time.toISOString()]);
    return rows.map((row) => offsetAt(topic, time, row));
  }

  async fetch(positions: readonly FetchPosition[], options?: FetchOptions): Promise<LogRecord[]> {
    this.#assertOpen();
    return this.#fetcher.fetch(positions, options);
  }

  async headersOf(ids: readonly number[]): Promise<OutboxHeaders[]> {
    this.#assertOpen();
    if (ids.length === 0) return [];
    const rows = await this.#pool.query(
      `select position, message_id, headers from ${this.#options.quotedSchema}.outbox
        where position = any($1::bigint[]) and position between $2::bigint and $3::bigint`,
      [`{${ids.join(',')}}`, Math.min(...ids), Math.max(...ids)], // the bounds let it leave out partitions
    );
    return rows.map(([id, messageId, headers]) => ({
      id: Number(id),
      messageId: messageId ?? '',
      headers: decodeHeaders(headers ?? '{}'),
    }));
  }

  async createTopic(name: string, partitions: number, settings?: TopicSettings): Promise<void> {
    this.#assertOpen();
    const ids = await this.#topics.ensure(name, partitions);
    if (ids.length !== partitions) throw existsOtherwise(name, ids.length, partitions);
    if (settings !== undefined) await this.#topics.configure(name, settings);
  }

  async alterTopic(name: string, settings: TopicSettings): Promise<void> {
    this.#assertOpen();
    await this.#topics.configure(name, settings);
  }

  async addPartitions(name: string, partitions: number): Promise<void> {
    this.#assertOpen();
    await this.#topics.grow(name, partitions);
  }

  async acquireWriter(options: WriterOptions): Promise<LogWriter> {
    this.#assertOpen();
    assertLeaseMs(options.leaseMs);
    const writer = await openWriter(
      {
        ...this.#options,
        pool: this.#pool,
        onAppended: (partitions) => this.#wakeUps.wake(partitions),
        onReleased: (released) => this.#writers.delete(released),
      },
      { ...options, signal: AbortSignal.any([options.signal, this.#closing.signal]) },
    );
    this.#writers.add(writer);
    return writer;
  }

  async close(): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([...this.#writers].map((writer) => writer.release()));
    await this.#wakeUps.close();
    await this.#pool.close();
  }

  get #entry(): string {
    return `${this.#options.quotedSchema}.log_entry`;
  }

  get #partition(): string {
    return `${this.#options.quotedSchema}.log_partition`;
  }

  #assertOpen(): void {
    if (this.#closing.signal.aborted) throw new TailraceError('STOPPED', 'This log was closed. Open another one.');
  }
}

function existsOtherwise(topic: string, found: number, asked: number): TailraceError {
  return new TailraceError(
    'INVALID_OPTION',
    `The topic ${topic} exists with ${found} partitions, and ${asked} were asked for. Expected the number that it has. Partitions can be added (addPartitions, tailrace topics alter ${topic} --partitions N), not removed; tailrace topics describe ${topic} shows it.`,
    { details: { topic, partitions: found } },
  );
}

const SHORTEST_LEASE_MS = 100;

function assertLeaseMs(leaseMs: number): void {
  if (leaseMs >= SHORTEST_LEASE_MS && leaseMs <= LONGEST_TIMER_MS) return;
  throw invalid('leaseMs', String(leaseMs), `${SHORTEST_LEASE_MS} to ${LONGEST_TIMER_MS} milliseconds`);
}
