import type pg from 'pg';
import type { RangeRow } from './range-plan.ts';

/** How far a partition is finished, dealt and known. */
export interface WorkPlace {
  readonly topic: string;
  readonly partition: number;
  readonly nextOffset: bigint;
  readonly dealtTo: bigint;
  readonly seenEnd: bigint;
}

/** What changes in the ranges of a group. */
export interface RangeChanges {
  /** Leases of ranges that end. */
  readonly removed: readonly string[];
  /** Ranges that begin later now, since what was before is finished. */
  readonly advanced: readonly { readonly lease: string; readonly from: bigint }[];
  readonly added: readonly RangeRow[];
}

/** What is known of replays in a partition. */
export interface ReplayFacts {
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  readonly replayBelow: bigint;
  readonly replayUntil: bigint;
  readonly replayExcept: readonly bigint[];
}

interface RangeText {
  lease: string;
  topic: string;
  partition: number;
  from_offset: string;
  to_offset: string;
  member_id: string | null;
  abandonments: number;
  released_by: string | null;
}

/** The SQL of one group's ranges. All of it runs under the lock of the group's row. */
export class RangeTables {
  readonly #schema: string;
  readonly #group: string;

  /** `schema` is quoted. */
  constructor(schema: string, group: string) {
    this.#schema = schema;
    this.#group = group;
  }

  /** All ranges of the group, in order. */
  async ranges(client: pg.ClientBase): Promise<RangeRow[]> {
    const { rows } = await client.query<RangeText>(
      `select lease::text, topic, partition, from_offset::text, to_offset::text, member_id, abandonments, released_by
        from ${this.#schema}.work_range where group_name = $1 order by topic collate "C", partition, from_offset`,
      [this.#group],
    );
    return rows.map(({ lease, topic, partition, from_offset, to_offset, member_id, abandonments, released_by }) => ({
      lease,
      topic,
      partition,
      from: BigInt(from_offset),
      to: BigInt(to_offset),
      memberId: member_id,
      abandonments,
      releasedBy: released_by,
    }));
  }

  /** How many records more each member could take when it was last heard. */
  async rooms(client: pg.ClientBase): Promise<Map<string, number>> {
    const { rows } = await client.query<{ member_id: string; room: number }>(
      `select member_id, room from ${this.#schema}.consumer_member where group_name = $1`,
      [this.#group],
    );
    return new Map(rows.map(({ member_id, room }) => [member_id, room]));
  }

  async setRoom(client: pg.ClientBase, memberId: string, room: number): Promise<void> {
    await client.query(
      `update ${this.#schema}.consumer_member set room = $3 where group_name = $1 and member_id = $2`,
      [this.#group, memberId, room],
    );
  }

  /**
   * Those of some leases that can be taken away: no transaction that has passed `assert_range` with them is uncommitted, and
   * none passes any more before this transaction ends.
   */
  async seize(client: pg.ClientBase, leases: readonly string[]): Promise<Set<string>> {
    if (leases.length === 0) return new Set();
    const { rows } = await client.query<{ lease: string }>(
      `select lease::text from unnest($1::uuid[]) v (lease)
        where pg_try_advisory_xact_lock(hashtext('tailrace_range'), hashtext(lease::text))`,
      [leases],
    );
    return new Set(rows.map(({ lease }) => lease));
  }

  async change(client: pg.ClientBase, { removed, advanced, added }: RangeChanges): Promise<void> {
    if (removed.length > 0) {
      await client.query(`delete from ${this.#schema}.work_range where lease = any($1::uuid[])`, [removed]);
    }
    if (advanced.length > 0) {
      await client.query(
        `update ${this.#schema}.work_range r set from_offset = v.from_offset
          from unnest($1::uuid[], $2::bigint[]) v (lease, from_offset) where r.lease = v.lease`,
        [advanced.map(({ lease }) => lease), advanced.map(({ from }) => from.toString())],
      );
    }
    if (added.length === 0) return;
    await client.query(
      `insert into ${this.#schema}.work_range
          (group_name, lease, topic, partition, from_offset, to_offset, member_id, abandonments, released_by)
        select $1, * from unnest($2::uuid[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::text[], $8::int[], $9::text[])`,
      [
        this.#group,
        added.map(({ lease }) => lease),
        added.map(({ topic }) => topic),
        added.map(({ partition }) => partition),
        added.map(({ from }) => from.toString()),
        added.map(({ to }) => to.toString()),
        added.map(({ memberId }) => memberId),
        added.map(({ abandonments }) => abandonments),
        added.map(({ releasedBy }) => releasedBy),
      ],
    );
  }

  /** Stores how far partitions are finished, dealt and known. What is dealt may be begun: see `reach`. */
  async place(client: pg.ClientBase, places: readonly WorkPlace[]): Promise<void> {
    if (places.length === 0) return;
    await client.query(
      `update ${this.#schema}.consumer_cursor c set next_offset = greatest(c.next_offset, v.next_offset),
          dealt_to = v.dealt_to, seen_end = v.seen_end, reach = greatest(c.reach, v.dealt_to)
        from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[])
          v (topic, partition, next_offset, dealt_to, seen_end)
        where c.group_name = $1 and c.topic = v.topic and c.partition = v.partition`,
      [
        this.#group,
        places.map(({ topic }) => topic),
        places.map(({ partition }) => partition),
        places.map(({ nextOffset }) => nextOffset.toString()),
        places.map(({ dealtTo }) => dealtTo.toString()),
        places.map(({ seenEnd }) => seenEnd.toString()),
      ],
    );
  }

  /** What is known of replays in partitions. */
  async replays(
    client: pg.ClientBase,
    places: readonly { readonly topic: string; readonly partition: number }[],
  ): Promise<ReplayFacts[]> {
    if (places.length === 0) return [];
    const { rows } = await client.query<{
      topic: string;
      partition: number;
      generation: number;
      replay_below: string;
      replay_until: string;
      replay_except: string[];
    }>(
      `select topic, partition, generation, replay_below::text, replay_until::text, replay_except::text[]
        from ${this.#schema}.consumer_cursor join unnest($2::text[], $3::int[]) v (topic, partition) using (topic, partition)
        where group_name = $1`,
      [this.#group, places.map(({ topic }) => topic), places.map(({ partition }) => partition)],
    );
    return rows.map(({ topic, partition, generation, replay_below, replay_until, replay_except }) => ({
      topic,
      partition,
      generation,
      replayBelow: BigInt(replay_below),
      replayUntil: BigInt(replay_until),
      replayExcept: replay_except.map(BigInt),
    }));
  }
}
