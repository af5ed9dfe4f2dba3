import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import type { Log } from '../broker/log.ts';
import { currentVersion } from '../postgres/migrations.ts';
import { ALL_MEMBERS, GROUP_CHANNEL, GROUPS_MIGRATION } from './group-tables.ts';
import { isName, shown } from './option-checks.ts';
import type { ConsumerDatabase, ConsumerMode } from './options.ts';

/** A database in which groups are looked after: a `pg.Pool`, or whatever hands out clients as it does. */
export type GroupDatabase = Pick<ConsumerDatabase, 'connect'>;

/** Where groups are. */
export interface GroupsPlace {
  readonly database: GroupDatabase;
  /** Quoted. */
  readonly schema: string;
  readonly schemaName: string;
}

/** A group, and where it is. */
export interface GroupInDatabase extends GroupsPlace {
  readonly group: string;
}

/** A group's place in a partition, and the records that it has stored: from `storedFrom` on and below `storedTo`. */
export interface StoredPlace {
  readonly partition: number;
  readonly nextOffset: bigint;
  readonly storedFrom: bigint;
  readonly storedTo: bigint;
}

/** A move of a group's place in a partition, and where the partition ends. */
export interface MoveInPartition {
  readonly partition: number;
  readonly from: bigint;
  readonly to: bigint;
  readonly end: bigint;
}

/**
 * Checks what an act on a group was given, for callers without types: an object with a database, and with these names.
 *
 * @throws TailraceError `INVALID_OPTION`.
 */
export function assertGiven(act: string, given: unknown, names: readonly string[]): void {
  const invalid = (problem: string): TailraceError => new TailraceError('INVALID_OPTION', `${act}: ${problem}`);
  const expected = ['database', ...names].join(', ');
  if (typeof given !== 'object' || given === null) throw invalid(`there are no options. Expected { ${expected} }.`);
  const options = given as Readonly<Record<string, unknown>>;
  const { connect } = (options['database'] ?? {}) as Partial<GroupDatabase>;
  if (typeof connect !== 'function') throw invalid('database has no method connect. Expected a pg.Pool.');
  for (const name of names) {
    const found = options[name];
    if (isName(found)) continue;
    throw invalid(`${name} is ${shown(found)}. Expected 1 to 200 characters.`);
  }
}

/** @throws TailraceError `INVALID_OPTION`: it has no method `ends`, by which a log is known here. */
export function assertLog(act: string, log: unknown): void {
  if (typeof (log as Partial<Log> | null | undefined)?.ends === 'function') return;
  throw new TailraceError(
    'INVALID_OPTION',
    `${act}: log has no method ends. Expected a log, such as postgresLog({ connectionString }).`,
  );
}

/** @throws TailraceError `INVALID_OPTION`: neither true nor false, nor left out: 'false' would be taken for true. */
export function assertFlag(act: string, name: string, found: unknown): void {
  if (found === undefined || typeof found === 'boolean') return;
  throw new TailraceError('INVALID_OPTION', `${act}: ${name} is ${shown(found)}. Expected true or false.`);
}

/**
 * Does something to a group alone: in one transaction, under the lock of the group's row, as its members do at each
 * heartbeat. All members look at the group again afterwards.
 *
 * @throws TailraceError `UNKNOWN_GROUP`, `NOT_MIGRATED`.
 */
export async function inGroup<Result>(
  { group, ...place }: GroupInDatabase,
  work: (locked: LockedGroup) => Promise<Result>,
): Promise<Result> {
  return inGroups(place, [group], (client) => work(new LockedGroup(client, place.schema, group)));
}

/**
 * The same for several groups at once.
 *
 * @throws TailraceError `UNKNOWN_GROUP`, `NOT_MIGRATED`.
 */
export async function inGroups<Result>(
  { database, schema, schemaName }: GroupsPlace,
  groups: readonly string[],
  work: (client: pg.PoolClient) => Promise<Result>,
): Promise<Result> {
  const client = await database.connect();
  let failed = true;
  try {
    await assertMigrated(client, schemaName);
    await client.query('begin isolation level read committed');
    for (const group of [...groups].sort()) await new LockedGroup(client, schema, group).lock();
    const result = await work(client);
    for (const group of groups) {
      await client.query('select pg_notify($1, $2)', [GROUP_CHANNEL, JSON.stringify({ group, members: ALL_MEMBERS })]);
    }
    await client.query('commit');
    failed = false;
    return result;
  } finally {
    client.release(failed); // a failed client is closed, which undoes its transaction
  }
}

async function assertMigrated(client: pg.PoolClient, schema: string): Promise<void> {
  const version = await currentVersion(client, schema);
  if (version >= GROUPS_MIGRATION) return;
  throw new TailraceError(
    'NOT_MIGRATED',
    `The schema ${schema} of this database is at migration ${version}; this needs ${GROUPS_MIGRATION}. Run: tailrace migrate`,
    { details: { schema, version } },
  );
}

/** What the row of a group says of deployments. */
export interface GroupRowState {
  readonly ephemeral: boolean;
  readonly mode: ConsumerMode;
  /** The group that it is to take over from. */
  readonly follows: string | null;
  /** The group that it gives everything up for. */
  readonly handsOverTo: string | null;
  /** Since when that group has all of it. */
  readonly handedOverAt: Date | null;
}

/** A group whose row is locked by the transaction of `client`. */
export class LockedGroup {
  readonly client: pg.PoolClient;
  readonly schema: string;
  readonly group: string;

  constructor(client: pg.PoolClient, schema: string, group: string) {
    this.client = client;
    this.schema = schema;
    this.group = group;
  }

  /** @throws TailraceError `UNKNOWN_GROUP`. */
  async lock(): Promise<void> {
    const { rowCount } = await this.client.query(
      `select from ${this.schema}.consumer_group where name = $1 for update`,
      [this.group],
    );
    if (rowCount === 0) throw unknownGroup(this.group);
  }

  /** The members whose lease runs; static ones that are away are among them. */
  async liveMembers(): Promise<string[]> {
    const { rows } = await this.client.query<{ member_id: string }>(
      `select member_id from ${this.schema}.consumer_member
        where group_name = $1 and expires_at > clock_timestamp() order by member_id`,
      [this.group],
    );
    return rows.map(({ member_id }) => member_id);
  }

  /** What its row says beside its places. */
  async state(): Promise<GroupRowState> {
    const { rows } = await this.client.query<GroupRowState>(
      `select ephemeral, mode, follows, hands_over_to as "handsOverTo", handed_over_at as "handedOverAt" from ${this.schema}.consumer_group
        where name = $1`,
      [this.group],
    );
    const [state] = rows;
    if (state === undefined) throw unknownGroup(this.group);
    return state;
  }

  /** The topics in which the group has a place. */
  async topics(): Promise<string[]> {
    const { rows } = await this.client.query<{ topic: string }>(
      `select distinct topic from ${this.schema}.consumer_cursor where group_name = $1 order by topic`,
      [this.group],
    );
    return rows.map(({ topic }) => topic);
  }

  /** Where the group is in a topic, or in one partition of it. */
  async placesIn(topic: string, partition?: number): Promise<StoredPlace[]> {
    const { rows } = await this.client.query<{
      partition: number;
      next_offset: string;
      stored_from: string;
      stored_to: string;
    }>(
      `select partition, next_offset::text, stored_from::text, stored_to::text from ${this.schema}.consumer_cursor
        where group_name = $1 and topic = $2 and partition = coalesce($3, partition) order by partition`,
      [this.group, topic, partition ?? null],
    );
    return rows.map(({ partition: at, next_offset, stored_from, stored_to }) => ({
      partition: at,
      nextOffset: BigInt(next_offset),
      storedFrom: BigInt(stored_from),
      storedTo: BigInt(stored_to),
    }));
  }

  /** Waits for commits of partitions that have begun, and lets no other begin before this transaction ends. */
  async awaitCommits(topic: string, partitions: readonly { readonly partition: number }[]): Promise<void> {
    await this.client.query(
      `select pg_advisory_xact_lock(hashtext('tailrace_assignment'), hashtext($1 || '/' || $2 || '/' || partition))
        from unnest($3::int[]) partition`,
      [this.group, topic, partitions.map(({ partition }) => partition)],
    );
  }

  /**
   * Ends the assignments of partitions: what their owners have under way there cannot commit any more. Waits for commits that
   * have begun.
   */
  async fence(topic: string, partitions: readonly { readonly partition: number }[]): Promise<void> {
    await this.awaitCommits(topic, partitions);
    const values = [this.group, topic, partitions.map(({ partition }) => partition)];
    const ranges = `from ${this.schema}.work_range where group_name = $1 and topic = $2 and partition = any($3::int[])`;
    await this.client.query(
      `select pg_advisory_xact_lock(hashtext('tailrace_range'), hashtext(lease::text)) ${ranges}`,
      values,
    );
    await this.client.query(`delete ${ranges}`, values);
    await this.client.query(
      `update ${this.schema}.consumer_cursor set epoch = epoch + 1, owner = null, dealt_to = null, seen_end = null
        where group_name = $1 and topic = $2 and partition = any($3::int[])`,
      values,
    );
  }

  /**
   * Moves places. Those that move back over records begin a new generation, in which these are handled again. A place beyond
   * the end is that of a log which lost its end, as after a failover: moved back to the end, it keeps its generation, so that
   * messages which come again, at other offsets, are known as handled; and nothing behind the end is a replay. What is stored
   * stays where the new place is in it.
   */
  async move(topic: string, moves: readonly MoveInPartition[]): Promise<void> {
    if (moves.some(isOverRecords)) {
      await this.client.query(`update ${this.schema}.consumer_group set generation = generation + 1 where name = $1`, [
        this.group,
      ]);
    }
    await this.client.query(
      `update ${this.schema}.consumer_cursor c set next_offset = v.place,
          generation = case when v.over_records then g.generation else c.generation end,
          replay_below = least(case when v.over_records then greatest(c.replay_below, c.next_offset) else c.replay_below end, v.ending),
          replay_except = case when v.over_records then array(
            select record_offset from ${this.schema}.parked_message p where p.group_name = $1 and p.topic = $2 and p.partition = c.partition
            union select o from unnest(c.replay_except) o where o >= c.next_offset) else c.replay_except end,
          replay_until = least(case when v.over_records then greatest(c.replay_until, v.ending, c.stored_to) else c.replay_until end,
            greatest(v.ending, c.stored_to)),
          stored_from = case when v.place between c.stored_from and c.stored_to then c.stored_from else v.place end,
          stored_to = case when v.place between c.stored_from and c.stored_to then c.stored_to else v.place end
        from unnest($3::int[], $4::bigint[], $5::bigint[], $6::boolean[]) v (partition, place, ending, over_records),
          ${this.schema}.consumer_group g
        where g.name = $1 and c.group_name = $1 and c.topic = $2 and c.partition = v.partition`,
      [
        this.group,
        topic,
        moves.map(({ partition }) => partition),
        moves.map(({ to }) => to.toString()),
        moves.map(({ end }) => end.toString()),
        moves.map(isOverRecords),
      ],
    );
    await this.client.query(
      `delete from ${this.schema}.inbox i using ${this.schema}.consumer_cursor c
        where c.group_name = $1 and c.topic = $2 and c.partition = any($3::int[]) and i.group_name = $1 and i.topic = $2
          and i.partition = c.partition and (i.record_offset < c.stored_from or i.record_offset >= c.stored_to)`,
      [this.group, topic, moves.map(({ partition }) => partition)],
    );
  }
}

/** Whether records that the group had left behind are ahead of it again. */
function isOverRecords({ from, to, end }: MoveInPartition): boolean {
  return to < from && to < end;
}

/** The error for a group that is in the way of what was asked. */
export function groupInUse(group: string, problem: string): TailraceError {
  return new TailraceError('GROUP_IN_USE', `The group ${group} ${problem}`, { details: { group } });
}

/** The error for a group that is not in the database. */
export function unknownGroup(group: string): TailraceError {
  return new TailraceError(
    'UNKNOWN_GROUP',
    `There is no group ${JSON.stringify(group.slice(0, 200))} in this database. tailrace groups lists those that exist; they live in the database that their handlers write to.`,
    { details: { group: group.slice(0, 200) } },
  );
}
