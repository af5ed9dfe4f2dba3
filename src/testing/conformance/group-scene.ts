import assert from 'node:assert/strict';
import pg from 'pg';
import { pause } from '../../base/signal.ts';
import { TailraceError } from '../../base/errors.ts';
import { keyHash, partitionOf } from '../../broker/partitioner.ts';
import type { NewRecord } from '../../broker/record.ts';
import { createConsumer, type Consumer } from '../../consumer/consumer.ts';
import type { DeliveryContext } from '../../consumer/handlers.ts';
import type { ConsumerDatabase, ConsumerOptions, PlainConsumerOptions } from '../../consumer/options.ts';
import { listenToPool } from '../../postgres/pool-listener.ts';
import { clientUrl } from '../../postgres/tls.ts';
import { readDeadLetters, type DeadLetter } from '../dead-letters.ts';
import {
  counted,
  countingMember,
  EFFECT_TABLE,
  LONG_LEASE_MS,
  type Count,
  type CountHandler,
} from './counting-member.ts';
import { OtherProcess } from './other-process.ts';
import type { MemberRequest } from './process-messages.ts';
import { newRecord, type HandlersDatabase, type Scene } from './scene.ts';

/** For what comes true sooner or later, however slow the machine. */
const PATIENCE_MS = 100_000;
/** Soon over. On a slow machine it may run out at other times too: no case that has it minds. */
export const SHORT_LEASE_MS = 1_000;

/** What a handler has written. */
export interface Effect extends Count {
  readonly member: string;
}

/** What a member of a case is to do. */
export interface MemberOptions extends Partial<ConsumerOptions> {
  /** Called after the effect is written, in its transaction. */
  readonly then?: CountHandler;
}

/** A scene with a database for handlers, which write what they did into a table. */
export class GroupScene {
  readonly scene: Scene;
  readonly #database: HandlersDatabase;
  #partitions = 0;

  private constructor(scene: Scene, database: HandlersDatabase) {
    this.scene = scene;
    this.#database = database;
  }

  static async open(scene: Scene, partitions: number): Promise<GroupScene> {
    const database = await scene.database();
    await database.pool.query(EFFECT_TABLE);
    const opened = new GroupScene(scene, database);
    await scene.createTopic(partitions);
    opened.#partitions = partitions;
    return opened;
  }

  /** Appends counts, each to the partition of its key. */
  async publish(counts: readonly Count[]): Promise<NewRecord[]> {
    const records = counts.map((count) => newRecord({ key: count.key, payload: JSON.stringify(count) }));
    await this.append(records);
    return records;
  }

  /** Appends records, each to the partition of its key. */
  async append(records: readonly NewRecord[]): Promise<void> {
    const byPartition = Map.groupBy(records, ({ key }) => this.partitionOf(key ?? ''));
    for (const [partition, those] of byPartition) await this.scene.append(partition, those);
  }

  partitionOf(key: string): number {
    return partitionOf(keyHash(key), this.#partitions);
  }

  /** A member that writes an effect for each count; it is stopped with the scene. */
  member(memberId: string, { then, ...options }: MemberOptions = {}): Consumer {
    const { topic, log } = this.scene;
    const consumer = countingMember(topic, { log, database: this.#database.pool, memberId, ...options }, then);
    this.scene.cleanup.add(() => consumer.stop());
    return consumer;
  }

  /** A member whose handler has no transaction. */
  plainMember(
    memberId: string,
    options: Pick<PlainConsumerOptions, 'delivery'> & Partial<PlainConsumerOptions>,
    handle: (count: Count) => unknown,
  ): Consumer<DeliveryContext> {
    const consumer = createConsumer({
      log: this.scene.log,
      group: this.scene.topic,
      database: this.#database.pool,
      memberId,
      concurrency: 4,
      leaseMs: LONG_LEASE_MS,
      heartbeatMs: 50,
      cursorIntervalMs: 50,
      drainTimeoutMs: 5_000,
      ...options,
    }).on(counted(this.scene.topic), ({ payload }) => handle(payload));
    this.scene.cleanup.add(() => consumer.stop());
    return consumer;
  }

  /** A member in a process of its own, which has joined. What is left of it is killed with the scene. */
  async process(
    memberId: string,
    options: Omit<MemberRequest, 'topic' | 'connectionString' | 'memberId'> = {},
  ): Promise<OtherProcess> {
    const other = await OtherProcess.start(this.scene);
    const { connectionString } = this.#database;
    await other.join({ topic: this.scene.topic, connectionString, memberId, ...options });
    return other;
  }

  /** A way to the database that can be cut. */
  line(): Line {
    const line = new Line(this.#database);
    this.scene.cleanup.add(() => line.close());
    return line;
  }

  async effects(group = this.scene.topic): Promise<Effect[]> {
    const { rows } = await this.#database.pool.query<Effect>(
      'select key, n, member from conformance_effect where topic = $1 and group_name = $2 order by id',
      [this.scene.topic, group],
    );
    return rows;
  }

  /** Waits until there are that many effects, or more. */
  async untilEffects(count: number, group?: string): Promise<void> {
    await until(`there are ${count} effects`, async () => (await this.effects(group)).length >= count);
  }

  /** Fails unless every key has had the effects 1 to `last`, each once and in this order. */
  async assertExact(keys: readonly string[], last: number, group?: string): Promise<void> {
    const numbers = Map.groupBy(await this.effects(group), ({ key }) => key);
    assert.deepEqual(
      Object.fromEntries(keys.map((key) => [key, (numbers.get(key) ?? []).map(({ n }) => n)])),
      Object.fromEntries(keys.map((key) => [key, Array.from({ length: last }, (_, at) => at + 1)])),
      'The effects of each key are not each number once and in order.',
    );
    assert.deepEqual([...numbers.keys()].sort(), [...keys].sort());
  }

  /** How many records are in the inbox. */
  async stored(): Promise<number> {
    const sql = 'select count(*)::int as count from tailrace.inbox where topic = $1';
    const { rows } = await this.#database.pool.query<{ count: number }>(sql, [this.scene.topic]);
    return rows[0]?.count ?? 0;
  }

  /** How many records are set aside, whatever they wait for. */
  async parked(): Promise<number> {
    const sql = 'select count(*)::int as count from tailrace.parked_message where topic = $1';
    const { rows } = await this.#database.pool.query<{ count: number }>(sql, [this.scene.topic]);
    return rows[0]?.count ?? 0;
  }

  async deadLetters(): Promise<DeadLetter[]> {
    const all = await readDeadLetters(this.#database.pool, 'tailrace');
    return all.filter(({ topic }) => topic === this.scene.topic);
  }
}

/** Counts of every key, interleaved. */
export function counts(keys: readonly string[], first: number, last: number): Count[] {
  return Array.from({ length: last - first + 1 }, (_, at) => keys.map((key) => ({ key, n: first + at }))).flat();
}

export function keysOf(count: number): string[] {
  return Array.from({ length: count }, (_, at) => `key ${at}`);
}

/** Waits until something holds that nobody signals. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (performance.now() > deadlineMs) throw new TailraceError('TIMEOUT', `Waited in vain until ${what}.`);
    await pause(10);
  }
}

/** A pool of its own for one member. While it is cut, the member is as good as dead to the others, and does not know it. */
export class Line implements ConsumerDatabase {
  readonly options = { max: 10 };
  readonly #admin: pg.Pool;
  readonly #pool: pg.Pool;
  readonly #name: string;
  #isCut = false;

  constructor({ pool, connectionString }: HandlersDatabase) {
    this.#admin = pool;
    this.#name = `line ${newRecord().messageId}`;
    const url = clientUrl(connectionString);
    this.#pool = new pg.Pool({ connectionString: url, max: this.options.max, application_name: this.#name });
    listenToPool(this.#pool); // connections are lost on purpose
  }

  connect(): Promise<pg.PoolClient> {
    if (this.#isCut) return Promise.reject(new TailraceError('TIMEOUT', 'The line was cut.', { retryable: true }));
    return this.#pool.connect();
  }

  /** Every connection is lost, with its transaction, and there is no other one. */
  async cut(): Promise<void> {
    this.#isCut = true;
    await until('no connection is left', async () => {
      const { rowCount } = await this.#admin.query(
        'select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = $1',
        [this.#name],
      );
      return rowCount === 0;
    });
  }

  mend(): void {
    this.#isCut = false;
  }

  /** Closes it, once its member has stopped. A case that failed may have left a client: the pool would wait for it for ever. */
  async close(): Promise<void> {
    const isEveryClientBack = this.#pool.totalCount === this.#pool.idleCount;
    const ended = this.#pool.end();
    if (isEveryClientBack) await ended;
  }
}
