import { TailraceError } from '../../base/errors.ts';
import type { Cluster } from '../../base/cluster.ts';
import { assertPartitions, assertTopicName, invalid } from '../checks.ts';
import type { ReadPool } from './read-pool.ts';

/** The numbers by which the entries of a topic's partitions are kept: partition n has `ids[n]`. */
export type PartitionIds = readonly number[];

/** What a topic keeps. `undefined` leaves a setting as it is. */
export interface TopicSettings {
  /** Records are removed so long after they were appended, in milliseconds; `null`: never. */
  readonly retentionMs?: number | null | undefined;
  /**
   * In each partition the oldest records are removed while the others hold as many bytes of messages, as they were written;
   * `null`: none are. Up to a sixteenth more stays.
   */
  readonly retentionBytes?: number | null | undefined;
  /**
   * Whether superseded records leave: of each key in a partition, the last one stays, and offsets keep their numbers. Records
   * without a key stay. A record with a key and the payload null is a delete marker: it supersedes what came before, and
   * leaves later itself. Once what was removed is gone, switching this off does not bring it back. At first `false`.
   */
  readonly compact?: boolean | undefined;
  /** Records younger than this are not removed by compaction, in milliseconds. At first an hour. */
  readonly minCompactionLagMs?: number | undefined;
  /**
   * A delete marker stays for so long after compaction has removed what it deletes, in milliseconds: who reads the topic
   * from its start learns of the deletion if that takes no longer. At first a day.
   */
  readonly deleteRetentionMs?: number | undefined;
}

/**
 * The topics of a log. Remembers what it has seen, as long as it is on one timeline of one cluster: partitions
 * that were added since are seen by `load`, and whoever finds that a topic was deleted says so.
 */
export class Topics {
  readonly #pool: ReadPool;
  readonly #schema: string;
  readonly #seen = new Map<string, PartitionIds>();
  readonly #formerCounts = new Map<string, readonly number[]>();
  #seenOn: Cluster | undefined;

  constructor(pool: ReadPool, quotedSchema: string) {
    this.#pool = pool;
    this.#schema = quotedSchema;
  }

  /** A topic that was found before; `undefined` says nothing about whether it exists. */
  known(topic: string): PartitionIds | undefined {
    return this.#known().get(topic);
  }

  /** The numbers of partitions that a topic has had, in ascending order, as far as it is known. */
  countsOf(topic: string): readonly number[] | undefined {
    const ids = this.known(topic);
    return ids === undefined ? undefined : [...(this.#formerCounts.get(topic) ?? []), ids.length];
  }

  /** `undefined` if the topic does not exist. */
  async find(topic: string): Promise<PartitionIds | undefined> {
    return this.#known().get(topic) ?? (await this.load(topic));
  }

  /** Forgets everything. */
  forget(): void {
    this.#seen.clear();
    this.#formerCounts.clear();
  }

  /** Forgets a topic, which was deleted: there may be another of its name. */
  forgetTopic(topic: string): void {
    this.#seen.delete(topic);
    this.#formerCounts.delete(topic);
  }

  /**
   * The number of one partition.
   *
   * @throws TailraceError `UNKNOWN_TOPIC`: no such topic, or no such partition of it.
   */
  async idOf(topic: string, partition: number): Promise<number> {
    const id = this.#known().get(topic)?.[partition] ?? (await this.load(topic))?.[partition];
    if (id !== undefined) return id;
    const count = this.#known().get(topic)?.length;
    if (count === undefined) throw unknownTopic(topic);
    throw new TailraceError(
      'UNKNOWN_TOPIC',
      `The topic ${topic} has no partition ${partition}: it has ${count}, counted from 0.`,
      { details: { topic, partition, partitions: count } },
    );
  }

  /**
   * Creates a topic, unless it exists; returns its partitions, however many it has.
   *
   * @throws TailraceError `INVALID_TOPIC`, `INVALID_OPTION`.
   */
  async ensure(topic: string, partitions: number): Promise<PartitionIds> {
    assertTopicName(topic);
    assertPartitions(partitions);
    await this.#pool.query(
      `with topic as (
         insert into ${this.#schema}.log_topic (name, partitions) values ($1, $2) on conflict do nothing returning *)
       insert into ${this.#schema}.log_partition (topic, partition)
         select name, n from topic, generate_series(0, partitions - 1) n`,
      [topic, partitions],
    );
    const ids = await this.load(topic);
    if (ids === undefined) throw unknownTopic(topic);
    return ids;
  }

  /**
   * Gives a topic more partitions, between two appends of whoever writes.
   *
   * @throws TailraceError `UNKNOWN_TOPIC`; `INVALID_OPTION`: not up to 10,000, or not more than it has.
   */
  async grow(topic: string, partitions: number): Promise<void> {
    assertPartitions(partitions);
    const [row] = await this.#pool.query(`select ${this.#schema}.add_partitions($1, $2::int)`, [topic, partitions]);
    const former = row?.[0] ?? null;
    if (former === null) throw unknownTopic(topic);
    if (Number(former) >= partitions) {
      throw invalid(
        'partitions',
        String(partitions),
        `more than ${former}, which the topic ${topic} has: partitions can be added, not removed`,
      );
    }
    await this.load(topic);
  }

  /** Asks for a topic anew; `undefined` if it does not exist. */
  async load(topic: string): Promise<PartitionIds | undefined> {
    const before = this.#pool.cluster;
    const rows = await this.#pool.query(
      `select id, (select string_agg(partitions_before::text, ',' order by partitions_before)
          from ${this.#schema}.log_topic_growth where topic = $1)
        from ${this.#schema}.log_partition where topic = $1 order by partition`,
      [topic],
    );
    this.forgetTopic(topic);
    if (rows.length === 0) return undefined;
    const ids = rows.map(([id]) => Number(id));
    const former = rows[0]?.[1] ?? '';
    if (before === undefined || before === this.#pool.cluster) {
      this.#known().set(topic, ids);
      if (former !== '') this.#formerCounts.set(topic, former.split(',').map(Number));
    }
    return ids;
  }

  /**
   * Sets what a topic keeps.
   *
   * @throws TailraceError `UNKNOWN_TOPIC`, `INVALID_OPTION`.
   */
  async configure(topic: string, settings: TopicSettings): Promise<void> {
    assertSettings(settings);
    const { retentionMs, retentionBytes, compact, minCompactionLagMs, deleteRetentionMs } = settings;
    const rows = await this.#pool.query(
      `update ${this.#schema}.log_topic set
          retention_ms = case when $2::boolean then $3::bigint else retention_ms end,
          retention_bytes = case when $4::boolean then $5::bigint else retention_bytes end,
          compact = coalesce($6::boolean, compact),
          compaction_lag_ms = coalesce($7::bigint, compaction_lag_ms),
          delete_retention_ms = coalesce($8::bigint, delete_retention_ms)
        where name = $1 returning name`,
      [
        ...[topic, retentionMs !== undefined, retentionMs, retentionBytes !== undefined, retentionBytes],
        ...[compact, minCompactionLagMs, deleteRetentionMs],
      ],
    );
    if (rows.length === 0) throw unknownTopic(topic);
  }

  #known(): Map<string, PartitionIds> {
    const { cluster } = this.#pool;
    if (cluster !== this.#seenOn) this.forget();
    this.#seenOn = cluster;
    return this.#seen;
  }
}

/** The error for a topic that does not exist. */
export function unknownTopic(topic: string): TailraceError {
  return new TailraceError(
    'UNKNOWN_TOPIC',
    `There is no topic ${JSON.stringify(topic.slice(0, 200))} in this log. The relay creates a topic with its first message, unless createTopics is off; createTopic(name, partitions) creates it ahead.`,
    { details: { topic: topic.slice(0, 200) } },
  );
}

function assertSettings(settings: TopicSettings): void {
  const { retentionMs, retentionBytes, compact, minCompactionLagMs, deleteRetentionMs } = settings;
  assertLimit('retentionMs', retentionMs);
  assertLimit('retentionBytes', retentionBytes);
  assertDuration('minCompactionLagMs', minCompactionLagMs);
  assertDuration('deleteRetentionMs', deleteRetentionMs);
  if (compact !== undefined && typeof compact !== 'boolean') throw invalid('compact', String(compact), 'true or false');
}

function assertDuration(name: string, ms: number | undefined): void {
  if (ms === undefined || (Number.isSafeInteger(ms) && ms >= 0)) return;
  throw invalid(name, String(ms), 'a whole number of milliseconds, at least 0');
}

function assertLimit(name: string, limit: number | null | undefined): void {
  if (limit == null || (Number.isSafeInteger(limit) && limit >= 1)) return;
  throw invalid(name, String(limit), 'a whole number, at least 1, or null');
}
