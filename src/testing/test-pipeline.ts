import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { silentLogger, type Logger } from '../base/logger.ts';
import { postgresLog, type PostgresLog } from '../broker/postgres/postgres-log.ts';
import { createConsumer, type Consumer } from '../consumer/consumer.ts';
import type { ConsumerOptions } from '../consumer/options.ts';
import type { EventMessage } from '../message/message.ts';
import type { OneOrMany } from '../outbox/checked-messages.ts';
import { createOutbox, type Outbox } from '../outbox/outbox.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import { createRelay, type Relay } from '../relay/relay.ts';
import { pollingSource } from '../source/polling/polling-source.ts';
import type { Source } from '../source/source.ts';
import { walSource } from '../source/wal/wal-source.ts';
import { Cleanup } from './cleanup.ts';
import { readDeadLetters, type DeadLetter } from './dead-letters.ts';
import { describeRemainder, Drain, persist, type DrainParts, type Remainder } from './drain.ts';
import { Groups } from './groups.ts';
import { PipelineTables } from './pipeline-tables.ts';
import { createTestDatabase, type TestDatabase, type TestDatabaseOptions } from './test-database.ts';

/** How to start a {@link TestPipeline}. */
export interface TestPipelineOptions extends TestDatabaseOptions {
  /** How the relay reads the outbox. @defaultValue 'wal' */
  readonly mode?: 'wal' | 'polling';
  /** Makes consumers, which are started and stopped with the pipeline. @defaultValue none */
  readonly consumers?: (environment: TestEnvironment) => readonly Consumer<unknown>[];
}

/** Options of a consumer that a pipeline makes: the pipeline knows the rest. */
export type TestConsumerOptions = Omit<ConsumerOptions, 'log' | 'group' | 'database' | 'schema'>;

/** What the application under test needs. */
export interface TestEnvironment {
  readonly connectionString: string;
  /** The schema of tailrace's tables. */
  readonly schema: string;
  /** Of the pipeline's database, for the test and for the application. */
  readonly pool: pg.Pool;
  readonly log: PostgresLog;
  readonly outbox: Outbox;
  /**
   * Makes a consumer on the pipeline's log and database. Whoever calls this adds the handlers and starts it; the pipeline
   * stops it. `heartbeatMs` is 50 here unless said otherwise, so that new topics are noticed soon.
   */
  consumer(group: string, options?: TestConsumerOptions): Consumer;
}

/** An outbox, a relay and consumers that run, on a database of their own. */
export interface TestPipeline extends TestEnvironment, AsyncDisposable {
  readonly relay: Relay;
  /** Publishes events in a transaction of its own. */
  publish<Events extends OneOrMany<EventMessage>>(events: Events): Promise<Events>;
  /**
   * Resolves once every message that was committed before the call is in the log and is handled, or set aside, by every
   * group: those of the pipeline's consumers, and any other that has a member in this database. What handlers publish
   * meanwhile is not waited for: call it again. Dead letters are not waited for either: see {@link deadLetters}.
   *
   * @param options `timeoutMs`: how long to wait; by default 4,000, which is less than what vitest gives a test.
   * @throws TailraceError `TIMEOUT`, which names what is missing; `STOPPED`; what the relay has halted with.
   */
  drained(options?: { readonly timeoutMs?: number }): Promise<void>;
  /** What groups have given up on so far, in that order. */
  deadLetters(): Promise<DeadLetter[]>;
  /**
   * Stops the consumers, the relay and the log, ends the pool, and drops the database with its slot, or stops the server
   * that was started for it. Close connections of your own first. May be called more than once.
   */
  stop(): Promise<void>;
}

/** Polls more often than in production, where nobody waits at the end of a test. */
const POLL_MS = 20;
const HEARTBEAT_MS = 50;
const DRAIN_TIMEOUT_MS = 4_000;

/**
 * Starts everything that stands between a committed transaction and its consumers, on an empty, migrated database: on a
 * server of its own, or on a given one.
 *
 * @throws TailraceError as `createTestDatabase`, and what a consumer's `start` throws.
 */
export async function startTestPipeline(options: TestPipelineOptions = {}): Promise<TestPipeline> {
  const { logger = silentLogger, schema = DEFAULT_SCHEMA } = options;
  const cleanup = new Cleanup();
  try {
    const database = await createTestDatabase({ ...options, schema });
    cleanup.add(() => database.stop());
    const pipeline = new Pipeline(database, { logger, schema, mode: options.mode ?? 'wal' }, cleanup);
    await pipeline.start(options.consumers);
    return pipeline;
  } catch (error) {
    await cleanup.runQuietly(logger);
    throw error;
  }
}

interface PipelineSettings {
  readonly logger: Logger;
  readonly schema: string;
  readonly mode: 'wal' | 'polling';
}

class Pipeline implements TestPipeline {
  readonly connectionString: string;
  readonly schema: string;
  readonly pool: pg.Pool;
  readonly log: PostgresLog;
  readonly outbox: Outbox;
  readonly relay: Relay;
  readonly #settings: PipelineSettings;
  readonly #cleanup: Cleanup;
  readonly #stopping = new AbortController();
  readonly #drains = new Set<Promise<void>>();
  readonly #groups: Groups;
  readonly #drainParts: DrainParts;

  constructor({ connectionString, pool }: TestDatabase, settings: PipelineSettings, cleanup: Cleanup) {
    const { schema, logger } = settings;
    this.connectionString = connectionString;
    this.schema = schema;
    this.pool = pool;
    this.log = postgresLog({ connectionString, schema, logger });
    this.outbox = createOutbox({ schema });
    this.relay = createRelay({ source: sourceOf(connectionString, settings), log: this.log, logger });
    this.#settings = settings;
    this.#cleanup = cleanup;
    const tables = new PipelineTables(pool, quoteSchema(schema));
    this.#groups = new Groups(tables);
    this.#drainParts = { tables, groups: this.#groups, relay: this.relay, stopping: this.#stopping.signal };
    cleanup.add(() => this.log.close());
    cleanup.add(() => this.relay.stop().catch(ifHalted(this.relay)));
    cleanup.add(() => this.#stopConsumers());
    cleanup.add(() => this.#settleDrains());
  }

  async start(makeConsumers: TestPipelineOptions['consumers']): Promise<void> {
    await this.relay.start();
    const consumers = makeConsumers?.(this) ?? [];
    for (const consumer of consumers) this.#groups.register(consumer);
    await Promise.all(consumers.map((consumer) => consumer.start()));
  }

  consumer(group: string, options: TestConsumerOptions = {}): Consumer {
    const { logger, schema } = this.#settings;
    const { log, pool } = this;
    const consumer = createConsumer({
      heartbeatMs: HEARTBEAT_MS,
      logger,
      ...options,
      log,
      group,
      database: pool,
      schema,
    });
    this.#groups.register(consumer, group);
    return consumer;
  }

  async publish<Events extends OneOrMany<EventMessage>>(events: Events): Promise<Events> {
    const client = await this.pool.connect();
    let failed = true;
    try {
      await client.query('begin');
      await this.outbox.publish(client, events);
      await client.query('commit');
      failed = false;
      return events;
    } finally {
      client.release(failed); // a failed client is closed, which undoes its transaction
    }
  }

  async drained({ timeoutMs = DRAIN_TIMEOUT_MS }: { readonly timeoutMs?: number } = {}): Promise<void> {
    const drain = this.#drain(timeoutMs);
    this.#drains.add(drain);
    try {
      await drain;
    } finally {
      this.#drains.delete(drain);
    }
  }

  async #drain(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    const { stopping } = this.#drainParts;
    const drain = await persist(() => Drain.begin(this.#drainParts), deadline, stopping);
    const remainder = await persist(() => drain.run(deadline), deadline, stopping);
    const missing = describeRemainder(remainder, this.relay.status());
    if (missing === undefined) return;
    throw timeout(missing, timeoutMs, remainder, await this.deadLetters());
  }

  deadLetters(): Promise<DeadLetter[]> {
    return readDeadLetters(this.pool, quoteSchema(this.schema));
  }

  stop(): Promise<void> {
    this.#stopping.abort();
    return this.#cleanup.run();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** A pool that is ended leaves queries unanswered. Who has called `drained` is told that the pipeline stops. */
  async #settleDrains(): Promise<void> {
    await Promise.allSettled(this.#drains);
  }

  async #stopConsumers(): Promise<void> {
    await Promise.all(this.#groups.consumers.map((consumer) => consumer.stop()));
  }
}

function sourceOf(connectionString: string, { mode, schema, logger }: PipelineSettings): Source {
  const make = mode === 'wal' ? walSource : pollingSource;
  return make({ connectionString, schema, logger, maxIntervalMs: POLL_MS });
}

/** A relay that has halted says so again when it is stopped; whoever waited for messages has been told. */
function ifHalted(relay: Relay): (error: unknown) => void {
  return (error) => {
    if (relay.status().state !== 'halted') throw error;
  };
}

function timeout(missing: string, timeoutMs: number, remainder: Remainder, dead: readonly DeadLetter[]): TailraceError {
  const letters = dead.length === 0 ? '' : ` Dead letters so far: ${dead.length}; deadLetters() shows them.`;
  const details = {
    notInLog: remainder.notInLog,
    behind: Object.fromEntries(remainder.groups.map(({ group, behind }) => [group, behind])),
    deadLetters: dead.length,
  };
  return new TailraceError(
    'TIMEOUT',
    `drained() waited for ${timeoutMs} ms. ${missing}.${letters} If they only need longer, raise timeoutMs.`,
    { retryable: true, details },
  );
}
