import type pg from 'pg';

/** A partition, and an offset in it: everything below is in the log, or is handled. */
export interface Place {
  readonly topic: string;
  readonly partition: number;
  readonly nextOffset: bigint;
}

/** What has become of the messages that a snapshot sees. */
export interface LoggedMessages {
  /** How many are in the outbox and not in the log. */
  readonly missing: number;
  /** Where the last of the others ends, in each partition that has any. */
  readonly ends: readonly Place[];
}

/** A member of a group whose lease runs. */
export interface LiveMember {
  readonly group: string;
  readonly memberId: string;
  readonly topics: readonly string[];
}

/** How far a group is, as it has stored it. */
export interface StoredPlace extends Place {
  readonly group: string;
}

/** What the database says of messages on their way. */
export class PipelineTables {
  readonly #pool: pg.Pool;
  readonly #schema: string;

  /** `schema` is quoted. */
  constructor(pool: pg.Pool, schema: string) {
    this.#pool = pool;
    this.#schema = schema;
  }

  /** What is committed now, in Postgres' text form. */
  async snapshot(): Promise<string> {
    const { rows } = await this.#pool.query<{ snapshot: string }>('select pg_current_snapshot()::text as snapshot');
    return rows[0]?.snapshot ?? '';
  }

  /**
   * Follows the messages that `snapshot` sees into the log. Of a compacted topic, those that the relay has passed count as
   * logged, be they superseded or not.
   */
  async logged(snapshot: string): Promise<LoggedMessages> {
    const { rows } = await this.#pool.query<{ topic: string | null; partition: number; end: string; count: string }>(
      `with compacted as (
         select name from ${this.#schema}.log_topic where compact
       ), passed as (
         select checkpoint from ${this.#schema}.relay_batch where checkpoint is not null order by seq desc limit 1
       ), message as (
         select position, topic in (select name from compacted)
             and not exists (select from ${this.#schema}.relay_dead_letter d where d.position = o.position)
             and exists (select from passed
               where pg_visible_in_snapshot(o.tx::text::xid8, split_part(checkpoint, ' ', 1)::pg_snapshot)
                 or o.position = any(('{' || split_part(checkpoint, ' ', 2) || '}')::bigint[])) as is_settled
           from ${this.#schema}.outbox o where pg_visible_in_snapshot(tx::text::xid8, $1::pg_snapshot)
       ), place as (
         select p.topic, p.partition, e.base + u.nth as next_offset, u.position
         from ${this.#schema}.log_entry e join ${this.#schema}.log_partition p on p.id = e.partition
         cross join unnest(e.ids) with ordinality u (position, nth)
       ), found as (
         select topic, partition, max(next_offset) as ending, count(*) as count
           from message left join place using (position) where topic is not null or not is_settled group by topic, partition
         union all
         select p.topic, p.partition, max(e.base + e.count), 0
           from ${this.#schema}.log_entry e join ${this.#schema}.log_partition p on p.id = e.partition
           where e.packed is not null and p.topic in (select name from compacted) group by p.topic, p.partition
       )
       select topic, partition, max(ending)::text as end, sum(count)::text as count from found group by topic, partition`,
      [snapshot],
    );
    return {
      missing: Number(rows.find(({ topic }) => topic === null)?.count ?? 0),
      ends: rows.flatMap(({ topic, partition, end }) =>
        topic === null ? [] : [{ topic, partition, nextOffset: BigInt(end) }],
      ),
    };
  }

  /** All members that are there. */
  async liveMembers(): Promise<LiveMember[]> {
    const { rows } = await this.#pool.query<{ group_name: string; member_id: string; topics: string[] }>(
      `select group_name, member_id, topics from ${this.#schema}.consumer_member where expires_at > clock_timestamp()`,
    );
    return rows.map(({ group_name, member_id, topics }) => ({ group: group_name, memberId: member_id, topics }));
  }

  /** How far all groups are. Groups store it now and then, so they may be further. */
  async storedPlaces(): Promise<StoredPlace[]> {
    const { rows } = await this.#pool.query<{
      group_name: string;
      topic: string;
      partition: number;
      next_offset: string;
    }>(`select group_name, topic, partition, next_offset::text from ${this.#schema}.consumer_cursor`);
    return rows.map(({ group_name, topic, partition, next_offset }) => ({
      group: group_name,
      topic,
      partition,
      nextOffset: BigInt(next_offset),
    }));
  }

  /**
   * How many records below the given ends each group has parked and will still handle: those that wait for a retry, and what
   * lines up behind them; not what waits for an operator, nor a timer whose time has not come.
   */
  async parked(ends: readonly Place[]): Promise<ReadonlyMap<string, number>> {
    const { rows } = await this.#pool.query<{ group_name: string; count: number }>(
      `select group_name, count(*)::int as count
       from unnest($1::text[], $2::int[], $3::bigint[]) place (topic, partition, next_offset)
       join ${this.#schema}.parked_message p using (topic, partition)
       where record_offset < next_offset and not dead and (blocks or due_at is not null)
         and not (reason = 'NOT_DUE' and due_at > clock_timestamp())
         and not exists (select from ${this.#schema}.parked_message d where d.group_name = p.group_name and d.topic = p.topic
           and d.partition = p.partition and d.generation = p.generation and d.blocks and p.blocks
           and hashtext(d.key) = hashtext(p.key) and d.key = p.key and d.record_offset < p.record_offset and d.dead)
       group by group_name`,
      [
        ends.map(({ topic }) => topic),
        ends.map(({ partition }) => partition),
        ends.map(({ nextOffset }) => nextOffset.toString()),
      ],
    );
    return new Map(rows.map(({ group_name, count }) => [group_name, count]));
  }
}
