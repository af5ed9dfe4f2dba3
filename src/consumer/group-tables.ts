import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import type { AssignorMember } from './assignor.ts';
import type { BlockedKey } from './added-partitions.ts';
import type { ConsumerMode } from './options.ts';
import type { CursorRow } from './sync-plan.ts';

/** Ends every wait of a member for another: the channel on which members that have something to do are named. */
export const GROUP_CHANNEL = 'tailrace_consumer';

/** In place of the names of members: all of them. */
export const ALL_MEMBERS = 'all';

/** The migration that brings everything that groups need. */
export const GROUPS_MIGRATION = 16;

/** What the group's row says to its members. */
export interface GroupState {
  /** The group that this one hands over to, or is to take over from: until that is done, or for good, it has no partitions. */
  readonly heldFor: string | undefined;
  /** The share of partitions for members that are canaries. */
  readonly canaryPercent: number;
  /** Whether there was no such group before. */
  readonly isNew: boolean;
  /** How its members share records out. */
  readonly mode: ConsumerMode;
}

/** A member as it reports itself. */
export interface ReportingMember extends AssignorMember {
  /** Which start of the member this is: see {@link GroupTables.join}. */
  readonly incarnation?: bigint;
  readonly staticLeaseMs?: number | undefined;
  readonly host?: string;
}

/** A partition of a group, and an offset in it. */
export interface PlaceInPartition {
  readonly topic: string;
  readonly partition: number;
  readonly nextOffset: bigint;
}

/** A partition that is added to what a group knows. */
export interface AddedPartition extends PlaceInPartition {
  /** See {@link CursorRow.opensAfter}. */
  readonly opensAfter?: readonly bigint[];
}

/**
 * How far ahead of what it has read an owner says that it may begin records; twice that stands in the table, so that a fetch
 * may reach beyond.
 */
export const REACH = 50_000n;

/** What a new owner gets. */
export interface TakenPartition extends PlaceInPartition {
  readonly epoch: bigint;
  /** Records from here on may not be begun before the group's table says that they may have been. */
  readonly reach: bigint;
  /**
   * Two owners in a row left without a word, not long ago, and may have died of a record below this offset; 0: that is not so.
   * It passes on to owners that get the partition in good order, who may get it before that record was reached.
   */
  readonly suspectBelow: bigint;
  readonly generation: number;
  /** Records below it were handled in an earlier generation, but for those in `replayExcept`. */
  readonly replayBelow: bigint;
  readonly replayExcept: readonly bigint[];
  /** Records from here on were not. */
  readonly replayUntil: bigint;
  /** Where the records end that are in the inbox. At `nextOffset` or before it: there are none. */
  readonly storedTo: bigint;
}

/** How far a partition is finished, by the owner of an epoch. */
export interface PlaceOfOwner extends PlaceInPartition {
  readonly epoch: bigint;
  /** How far it may begin records. */
  readonly wantedReach: bigint;
}

interface CursorText {
  topic: string;
  partition: number;
  next_offset: string;
  epoch: string;
  owner: string | null;
  wanted: string | null;
  generation: number;
  opens_after: string[] | null;
  dealt_to: string | null;
  seen_end: string | null;
}

interface TakenText extends Pick<CursorText, 'topic' | 'partition' | 'next_offset' | 'epoch' | 'generation'> {
  replay_below: string;
  replay_until: string;
  replay_except: string[];
  suspect_below: string;
  stored_to: string;
}

/** After how many a range, or a partition, is suspicious: so many owners have to leave a partition without a word, each within so long after the one before. */
export const SUSPICIOUS_ABANDONMENTS = 2;
const ABANDONMENTS_WITHIN = '1 hour';
/** How many there are with one more now, of the cursor `c`. */
const ONE_MORE_ABANDONMENT = `case when c.abandoned_at > clock_timestamp() - interval '${ABANDONMENTS_WITHIN}'
  then c.abandonments + 1 else 1 end`;

/** Whether the owner that the row of a place names has left it without a word. */
type IsAbandoned = (place: { readonly topic: string; readonly partition: number }) => boolean;

/**
 * The SQL of one group's tables. All methods but `begin` run inside the transaction that `begin` opened, under the lock of
 * the group's row: whoever holds it sees and changes the group alone.
 */
export class GroupTables {
  readonly #schema: string;
  readonly #group: string;
  readonly #isEphemeral: boolean;

  /** `schema` is quoted. `isEphemeral`: the group goes with its process. */
  constructor(schema: string, group: string, isEphemeral = false) {
    this.#schema = schema;
    this.#group = group;
    this.#isEphemeral = isEphemeral;
  }

  /**
   * Opens the transaction and locks the group, which is made if it is new. The server ends a transaction that stands idle for `idleMs`, so that a member that hangs does not hold the others up.
   */
  async begin(client: pg.PoolClient, idleMs: number): Promise<GroupState> {
    await client.query(
      `begin isolation level read committed; set local idle_in_transaction_session_timeout = ${idleMs}`,
    );
    for (let isNew = false; ;) {
      const { rows } = await client.query<{ held_for: string | null; canary_percent: number; mode: ConsumerMode }>(
        `select coalesce(hands_over_to, follows) as held_for, canary_percent, mode from ${this.#schema}.consumer_group
          where name = $1 for update`,
        [this.#group],
      );
      const [group] = rows;
      if (group !== undefined) {
        return { heldFor: group.held_for ?? undefined, canaryPercent: group.canary_percent, isNew, mode: group.mode };
      }
      const { rowCount } = await client.query(
        `insert into ${this.#schema}.consumer_group (name, ephemeral) values ($1, $2) on conflict do nothing`,
        [this.#group, this.#isEphemeral],
      );
      isNew = rowCount === 1;
    }
  }

  /**
   * Has the members share records out in another way from now on. What members of before had under way is refused, and what
   * they had in ranges is to be handled again from the stored places on.
   */
  async setMode(client: pg.PoolClient, mode: ConsumerMode): Promise<void> {
    const table = `${this.#schema}.work_range`;
    await client.query(
      `select pg_advisory_xact_lock(hashtext('tailrace_range'), hashtext(lease::text)) from ${table} where group_name = $1`,
      [this.#group],
    );
    await client.query(`delete from ${table} where group_name = $1`, [this.#group]);
    await client.query(
      `update ${this.#schema}.consumer_cursor set dealt_to = null, seen_end = null where group_name = $1`,
      [this.#group],
    );
    await client.query(`update ${this.#schema}.consumer_group set mode = $2 where name = $1`, [this.#group, mode]);
  }

  /** Counts the start of a member. Of two with one name the one with the higher number is the member. */
  async join(client: pg.PoolClient): Promise<bigint> {
    const { rows } = await client.query<{ joins: string }>(
      `update ${this.#schema}.consumer_group set joins = joins + 1 where name = $1 returning joins::text`,
      [this.#group],
    );
    return BigInt(rows[0]?.joins ?? 0);
  }

  /**
   * Prolongs this member's lease, forgets members whose lease has run out, and returns the others and itself. A static
   * member's lease in the group is `staticLeaseMs`, if that is longer.
   *
   * @throws TailraceError `MEMBER_FENCED`: a process that was started later has the name of this member.
   */
  async heartbeat(client: pg.PoolClient, member: ReportingMember, leaseMs: number): Promise<AssignorMember[]> {
    const { memberId, topics, incarnation = 0n, staticLeaseMs, host, canary = false } = member;
    const others = await client.query<{ member_id: string | null; topics: string[]; canary: boolean }>(
      `with gone as (
         delete from ${this.#schema}.consumer_member
         where group_name = $1 and member_id <> $2 and expires_at < statement_timestamp()
       ), myself as (
         insert into ${this.#schema}.consumer_member as m
           (group_name, member_id, topics, expires_at, incarnation, static_lease_ms, host, canary)
         values ($1, $2, $3, clock_timestamp() + $4 * interval '1 millisecond', $5, $6, $7, $8)
         on conflict (group_name, member_id) do update set topics = excluded.topics, expires_at = excluded.expires_at,
           incarnation = excluded.incarnation, static_lease_ms = excluded.static_lease_ms, host = excluded.host, canary = excluded.canary,
           joined_at = case when m.incarnation = excluded.incarnation then m.joined_at else excluded.joined_at end
           where m.incarnation <= excluded.incarnation
         returning 1
       )
       select member_id, topics, canary from ${this.#schema}.consumer_member
       where group_name = $1 and member_id <> $2 and expires_at >= statement_timestamp()
       union all select null, null, null where not exists (select from myself)`,
      [
        this.#group,
        memberId,
        topics,
        Math.max(leaseMs, staticLeaseMs ?? 0),
        incarnation.toString(),
        staticLeaseMs ?? null,
        host ?? null,
        canary,
      ],
    );
    const members = others.rows.map(({ member_id, topics: theirs, canary: isCanary }) => {
      if (member_id === null) throw memberFenced(this.#group, memberId);
      return { memberId: member_id, topics: theirs, ...(isCanary && { canary: true }) };
    });
    return [...members, { memberId, topics, ...(canary && { canary: true }) }];
  }

  /** Every partition that the group knows, in order. */
  async cursors(client: pg.PoolClient): Promise<CursorRow[]> {
    const { rows } = await client.query<CursorText>(
      `select topic, partition, next_offset::text, epoch::text, owner, wanted, generation, opens_after::text[],
         dealt_to::text, seen_end::text
       from ${this.#schema}.consumer_cursor where group_name = $1 order by topic collate "C", partition`,
      [this.#group],
    );
    return rows.map(
      ({ topic, partition, next_offset, epoch, owner, wanted, generation, opens_after, dealt_to, seen_end }) => ({
        topic,
        partition,
        nextOffset: BigInt(next_offset),
        epoch: BigInt(epoch),
        owner,
        wanted,
        generation,
        opensAfter: opens_after?.map(BigInt) ?? null,
        ...(dealt_to !== null && { dealtTo: BigInt(dealt_to) }),
        ...(seen_end !== null && { seenEnd: BigInt(seen_end) }),
      }),
    );
  }

  /** Takes partitions in that the group does not know yet. */
  async addCursors(client: pg.PoolClient, places: readonly AddedPartition[]): Promise<void> {
    if (places.length === 0) return;
    await client.query(
      `insert into ${this.#schema}.consumer_cursor (group_name, topic, partition, next_offset, opens_after, epoch)
       select $1, topic, partition, next_offset, opens_after::bigint[],
         (select first_epoch from ${this.#schema}.consumer_group where name = $1)
       from unnest($2::text[], $3::int[], $4::bigint[], $5::text[]) v (topic, partition, next_offset, opens_after)`,
      [this.#group, ...columnsOf(places), places.map(({ opensAfter }) => opensAfter && `{${opensAfter.join(',')}}`)],
    );
  }

  /** Says who is to own what. */
  async setWanted(
    client: pg.PoolClient,
    changes: readonly { readonly row: CursorRow; readonly wanted: string | null }[],
  ): Promise<void> {
    if (changes.length === 0) return;
    await client.query(
      `update ${this.#schema}.consumer_cursor c set wanted = v.wanted
       from unnest($2::text[], $3::int[], $4::text[]) v (topic, partition, wanted)
       where c.group_name = $1 and c.topic = v.topic and c.partition = v.partition`,
      [
        this.#group,
        changes.map(({ row }) => row.topic),
        changes.map(({ row }) => row.partition),
        changes.map(({ wanted }) => wanted),
      ],
    );
  }

  /** Stores how far partitions are finished, and may be begun, where the epoch is still the given one. */
  async advance(client: pg.PoolClient, places: readonly PlaceOfOwner[]): Promise<void> {
    if (places.length === 0) return;
    await client.query(
      `update ${this.#schema}.consumer_cursor c set next_offset = greatest(c.next_offset, v.next_offset),
         reach = greatest(c.reach, v.reach)
       from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[]) v (topic, partition, next_offset, epoch, reach)
       where c.group_name = $1 and c.topic = v.topic and c.partition = v.partition and c.epoch = v.epoch
         and (c.next_offset < v.next_offset or c.reach < v.reach)`,
      [
        this.#group,
        ...columnsOf(places),
        places.map(({ epoch }) => epoch.toString()),
        places.map(({ wantedReach }) => (wantedReach + REACH).toString()),
      ],
    );
  }

  /** Sets partitions free. `isAbandoned` says where a former process of this member has left without a word. */
  async release(client: pg.PoolClient, rows: readonly CursorRow[], isAbandoned: IsAbandoned): Promise<void> {
    if (rows.length === 0) return;
    await client.query(
      `update ${this.#schema}.consumer_cursor c set owner = null,
         abandonments = case when v.is_abandoned then ${ONE_MORE_ABANDONMENT} else c.abandonments end,
         abandoned_at = case when v.is_abandoned then clock_timestamp() else c.abandoned_at end
       from unnest($2::text[], $3::int[], $4::boolean[]) v (topic, partition, is_abandoned)
       where c.group_name = $1 and c.topic = v.topic and c.partition = v.partition`,
      [
        this.#group,
        rows.map(({ topic }) => topic),
        rows.map(({ partition }) => partition),
        rows.map((row) => isAbandoned(row)),
      ],
    );
  }

  /**
   * Makes `memberId` the owner, with a new epoch. Returns what it got: a partition in which a commit of the former owner is
   * under way at this moment is left out, and can be had a moment later. The lock is the one that `assert_assignment`
   * shares: with it held, no transaction that has passed that check is still uncommitted. `isAbandoned` says where the
   * former owner has left without a word.
   */
  async take(
    client: pg.PoolClient,
    memberId: string,
    rows: readonly CursorRow[],
    isAbandoned: IsAbandoned,
  ): Promise<TakenPartition[]> {
    if (rows.length === 0) return [];
    const { rows: locked } = await client.query<{ topic: string; partition: number }>(
      `select topic, partition from unnest($2::text[], $3::int[]) v (topic, partition)
       where pg_try_advisory_xact_lock(hashtext('tailrace_assignment'), hashtext($1 || '/' || topic || '/' || partition))`,
      [this.#group, rows.map(({ topic }) => topic), rows.map(({ partition }) => partition)],
    );
    const taken = await client.query<TakenText>(
      `update ${this.#schema}.consumer_cursor c set owner = $4, epoch = c.epoch + 1,
         reach = greatest(c.reach, c.next_offset + ${2n * REACH}), abandonments = former.abandonments,
         abandoned_at = case when v.is_abandoned then clock_timestamp() else c.abandoned_at end
       from unnest($2::text[], $3::int[], $5::boolean[]) v (topic, partition, is_abandoned),
         lateral (select reach, case when v.is_abandoned then ${ONE_MORE_ABANDONMENT} else abandonments end as abandonments
           from ${this.#schema}.consumer_cursor c
           where c.group_name = $1 and c.topic = v.topic and c.partition = v.partition) former
       where c.group_name = $1 and c.topic = v.topic and c.partition = v.partition
       returning c.topic, c.partition, c.next_offset::text, c.epoch::text, c.generation, c.replay_below::text,
         c.replay_until::text, c.replay_except::text[], c.stored_to::text,
         (case when former.abandonments >= ${SUSPICIOUS_ABANDONMENTS}
             and c.abandoned_at > clock_timestamp() - interval '${ABANDONMENTS_WITHIN}' then former.reach else 0 end)::text
           as suspect_below`,
      [
        this.#group,
        locked.map(({ topic }) => topic),
        locked.map(({ partition }) => partition),
        memberId,
        locked.map(isAbandoned),
      ],
    );
    return taken.rows.map(
      ({
        topic,
        partition,
        next_offset,
        epoch,
        generation,
        replay_below,
        replay_until,
        replay_except,
        suspect_below,
        stored_to,
      }) => ({
        topic,
        partition,
        nextOffset: BigInt(next_offset),
        reach: BigInt(next_offset) + REACH,
        suspectBelow: BigInt(suspect_below),
        epoch: BigInt(epoch),
        generation,
        replayBelow: BigInt(replay_below),
        replayUntil: BigInt(replay_until),
        replayExcept: replay_except.map(BigInt),
        storedTo: BigInt(stored_to),
      }),
    );
  }

  /** The keys of these topics that are blocked by a record that is parked, each with its partition. */
  async blockedKeys(client: pg.PoolClient, rows: readonly CursorRow[]): Promise<BlockedKey[]> {
    const found = await client.query<BlockedKey>(
      `select distinct p.topic, p.partition, p.key from ${this.#schema}.parked_message p
        join ${this.#schema}.consumer_cursor c using (group_name, topic, partition)
        where p.group_name = $1 and p.topic = any($2::text[]) and p.blocks and p.generation = c.generation`,
      [this.#group, rows.map(({ topic }) => topic)],
    );
    return found.rows;
  }

  /**
   * Sets all partitions of a member free, and forgets it; a static one stays for its `staticLeaseMs`, so that they are not
   * given to others. Does nothing if a later process has its name.
   */
  async removeMember(client: pg.PoolClient, memberId: string, incarnation = 0n): Promise<void> {
    const parameters = [this.#group, memberId];
    const { rows } = await client.query<{ is_static: boolean }>(
      `update ${this.#schema}.consumer_member
        set expires_at = clock_timestamp() + coalesce(static_lease_ms, 0) * interval '1 millisecond'
        where group_name = $1 and member_id = $2 and incarnation <= $3 returning static_lease_ms is not null as is_static`,
      [...parameters, incarnation.toString()],
    );
    if (rows[0] === undefined) return;
    await client.query(
      `update ${this.#schema}.consumer_cursor set owner = null where group_name = $1 and owner = $2`,
      parameters,
    );
    if (rows[0].is_static) return;
    await client.query(
      `delete from ${this.#schema}.consumer_member where group_name = $1 and member_id = $2`,
      parameters,
    );
  }

  /** Removes ephemeral groups whose process has gone, this one too if its member has left. */
  async removeEphemeral(client: pg.PoolClient): Promise<void> {
    await client.query(`select ${this.#schema}.remove_ephemeral_groups()`);
  }

  /** Names members that have something to do, once this transaction commits. `all`: every other member. */
  async wake(client: pg.PoolClient, members: readonly string[] | 'all'): Promise<void> {
    if (members.length === 0) return;
    await client.query('select pg_notify($1, $2)', [GROUP_CHANNEL, wakeText(this.#group, members)]);
  }

  /** Tells the owners of partitions that something parked will be due after a time. */
  async tellDue(client: pg.PoolClient, afterMs: number): Promise<void> {
    await client.query('select pg_notify($1, $2)', [
      GROUP_CHANNEL,
      JSON.stringify({ group: this.#group, dueMs: afterMs }),
    ]);
  }

  /** After how long, by a notification on {@link GROUP_CHANNEL}, something parked of this group will be due. */
  dueAfter(payload: string | undefined): number | undefined {
    const { group, dueMs } = parseWake(payload);
    return group === this.#group ? dueMs : undefined;
  }

  /** Whether a notification on {@link GROUP_CHANNEL} says that what is parked of this group was changed. */
  isOfParked(payload: string | undefined): boolean {
    const { group, isOfParked } = parseWake(payload);
    return group === this.#group && isOfParked;
  }

  /** Whether a notification on {@link GROUP_CHANNEL} is for a member of this group. */
  wakes(memberId: string, payload: string | undefined): boolean {
    const { group, members } = parseWake(payload);
    return group === this.#group && (members === 'all' || members.includes(memberId));
  }
}

function memberFenced(group: string, memberId: string): TailraceError {
  return new TailraceError(
    'MEMBER_FENCED',
    `Another process was started later as the member ${memberId} of the group ${group}, and has taken its place. This one does nothing more. Give each process a memberId of its own.`,
    { details: { group, memberId } },
  );
}

function columnsOf(places: readonly PlaceInPartition[]): [string[], number[], string[]] {
  return [
    places.map(({ topic }) => topic),
    places.map(({ partition }) => partition),
    places.map(({ nextOffset }) => nextOffset.toString()),
  ];
}

/** NOTIFY carries less than 8,000 bytes. */
const LONGEST_WAKE_BYTES = 7_900;

function wakeText(group: string, members: readonly string[] | 'all'): string {
  const text = JSON.stringify({ group, members });
  return Buffer.byteLength(text) <= LONGEST_WAKE_BYTES ? text : JSON.stringify({ group, members: 'all' });
}

interface Wake {
  readonly group?: unknown;
  readonly members: readonly unknown[] | 'all';
  readonly isOfParked: boolean;
  readonly dueMs?: number | undefined;
}

function parseWake(payload: string | undefined): Wake {
  try {
    const { group, members, parked, dueMs } = JSON.parse(payload ?? '{}') as Record<string, unknown>;
    const isOfParked = parked === true;
    if (typeof dueMs === 'number') return { group, members: [], isOfParked: false, dueMs };
    if (Array.isArray(members)) return { group, members, isOfParked };
    return { group, members: members === 'all' ? 'all' : [], isOfParked };
  } catch {
    return { members: [], isOfParked: false }; // somebody else's word on our channel
  }
}
