import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { pause } from '../base/signal.ts';
import type { Log } from '../broker/log.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import { newGroupName } from './clone-group.ts';
import { copyHandled } from './copy-handled.ts';
import {
  assertFlag,
  assertGiven,
  assertLog,
  groupInUse,
  inGroup,
  inGroups,
  LockedGroup,
  type GroupDatabase,
  type GroupRowState,
  type GroupsPlace,
} from './group-admin.ts';
import { shown } from './option-checks.ts';

/** Which groups a cutover is between. */
export interface CutoverGroups {
  /** The database that the groups' handlers write to: a `pg.Pool`, or whatever hands out clients as it does. */
  readonly database: GroupDatabase;
  /** The group that hands over. */
  readonly from: string;
  /** The group that takes over: a new one, or one that has handed over to `from`. */
  readonly to: string;
  /** The schema of tailrace's tables. @defaultValue 'tailrace' */
  readonly schema?: string;
}

/** What {@link cutOver} is to do. */
export interface CutoverOptions extends CutoverGroups {
  /** Where the groups' records are. */
  readonly log: Log;
  /** How long to wait for members, in milliseconds. Then everything is as before. @defaultValue 300_000 */
  readonly timeoutMs?: number;
  /** Whether members of `to` have to be there before `from` gives anything up. @defaultValue true */
  readonly awaitMembers?: boolean;
  /** Told what is waited for, each time that it changes. */
  readonly onProgress?: (progress: CutoverProgress) => void;
  /** Ends the wait: everything is as before. */
  readonly signal?: AbortSignal;
}

/** What a cutover waits for. */
export type CutoverProgress =
  /** Members of the new group that handle these topics. */
  | { readonly waitsFor: 'members'; readonly topics: readonly string[] }
  /** Members of the old group, which finish what runs of so many partitions. */
  | { readonly waitsFor: 'drain'; readonly members: readonly string[]; readonly partitions: number };

/** What went over. */
export interface CutoverResult {
  /** Places in partitions. */
  readonly places: number;
  /** Messages that the old group had handled beyond its places. */
  readonly handled: number;
  /** Messages that are set aside. */
  readonly parked: number;
}

const POLL_MS = 100;

/**
 * Lets a group take over exactly where another one stops: nothing is lost, nothing is handled by both, and the order of each key
 * is kept. The new group is made, and its members wait; the old one's members finish what runs and give everything up; then
 * the new group gets the places, what was handled beyond them, and what is set aside, in one transaction. The old group
 * has nothing from then on, and can take over again in the same way.
 *
 * If it fails, the old group goes on as before, and members of the new one go on waiting.
 *
 * @throws TailraceError `TIMEOUT`, also where `signal` fired; `UNKNOWN_GROUP`; `GROUP_IN_USE`: one of the groups is in another
 * cutover or ephemeral, or `to` has places of its own; `INVALID_OPTION`; `NOT_MIGRATED`; what the log throws.
 */
export async function cutOver(options: CutoverOptions): Promise<CutoverResult> {
  assertGiven('cutOver', options, ['from', 'to']);
  newGroupName('cutOver', options.from, options.to);
  assertLog('cutOver', options.log);
  assertFlag('cutOver', 'awaitMembers', options.awaitMembers);
  assertTimeout(options.timeoutMs);
  const cutover = new Cutover(options);
  await cutover.prepare();
  try {
    await cutover.untilMembers();
    await cutover.freeze();
    return await cutover.untilDone();
  } catch (error) {
    await cutover.undo();
    throw error;
  }
}

/**
 * Undoes a cutover that was begun and not ended, as where its process died: the group `from` goes on as before, and members of
 * `to` go on waiting. Returns whether there was one.
 *
 * @throws TailraceError `GROUP_IN_USE`: the other group has taken over; `UNKNOWN_GROUP`; `NOT_MIGRATED`.
 */
export async function abortCutover(groups: CutoverGroups): Promise<boolean> {
  assertGiven('abortCutover', groups, ['from', 'to']);
  const { from, to } = groups;
  return inGroup({ ...placeOf(groups), group: from }, async (locked) => {
    const { handsOverTo, handedOverAt } = await locked.state();
    if (handedOverAt !== null) {
      throw groupInUse(
        from,
        `has handed over to ${handsOverTo}. To bring it back, cut over from ${handsOverTo} to it.`,
      );
    }
    if (handsOverTo !== to) return false;
    await setHandsOver(locked.client, locked.schema, from, null);
    return true;
  });
}

class Cutover {
  readonly #options: CutoverOptions;
  readonly #place: GroupsPlace;
  readonly #deadline: number;
  #told = '';

  constructor(options: CutoverOptions) {
    this.#options = options;
    this.#place = placeOf(options);
    this.#deadline = performance.now() + (options.timeoutMs ?? 300_000);
  }

  /** Makes the new group, and has it wait. */
  async prepare(): Promise<void> {
    const { from, to } = this.#options;
    await inGroup({ ...this.#place, group: from }, async (locked) => {
      assertMayHandOver(from, to, await locked.state());
      await locked.client.query(
        `insert into ${locked.schema}.consumer_group (name, follows) values ($1, $2) on conflict do nothing`,
        [to, from],
      );
    });
    await inGroups(this.#place, [from, to], async (client) => {
      const target = new LockedGroup(client, this.#place.schema, to);
      const state = await target.state();
      assertMayTakeOver(to, from, state, (await target.topics()).length > 0);
      await client.query(
        `update ${this.#place.schema}.consumer_group set follows = $2, hands_over_to = null, handed_over_at = null
          where name = $1`,
        [to, from],
      );
    });
  }

  async untilMembers(): Promise<void> {
    if (this.#options.awaitMembers === false) return;
    const { from, to } = this.#options;
    await this.#until(async () => {
      const topics = await this.#ask<{ topic: string }>(
        `with alive as (
           select group_name, unnest(topics) as topic from ${this.#place.schema}.consumer_member
           where group_name in ($1, $2) and expires_at > clock_timestamp()
         ), known as (
           select distinct topic from ${this.#place.schema}.consumer_cursor where group_name = $1
         )
         select topic from known
         where topic not in (select topic from alive where group_name = $2)
           and (topic in (select topic from alive where group_name = $1) or not exists (select from alive where group_name = $1))
         order by topic`,
        [from, to],
      );
      return topics.length === 0 ? undefined : { waitsFor: 'members', topics: topics.map(({ topic }) => topic) };
    });
  }

  /** From now on the members of the old group give everything up, and take nothing. */
  async freeze(): Promise<void> {
    const { from, to } = this.#options;
    await inGroup({ ...this.#place, group: from }, async (locked) => {
      assertMayHandOver(from, to, await locked.state());
      await setHandsOver(locked.client, locked.schema, from, to);
    });
  }

  async untilDone(): Promise<CutoverResult> {
    let result: CutoverResult | undefined;
    await this.#until(async () => {
      const draining = await this.#draining((sql, values) => this.#ask(sql, values));
      if (draining !== undefined) return draining;
      result = await this.#handOver();
      return result === undefined ? this.#draining((sql, values) => this.#ask(sql, values)) : undefined;
    });
    if (result === undefined) throw new Error('A cutover ended without a result');
    return result;
  }

  /** Lets the old group go on. What comes in the way is left to `abortCutover`. */
  async undo(): Promise<void> {
    await abortCutover(this.#options).catch(() => false);
  }

  /** Everything goes over, in one transaction, unless a member of the old group has something yet. */
  async #handOver(): Promise<CutoverResult | undefined> {
    const { from, to, log } = this.#options;
    const { schema } = this.#place;
    return inGroups(this.#place, [from, to], async (client) => {
      const source = new LockedGroup(client, schema, from);
      await this.#assertAgreed(source, new LockedGroup(client, schema, to));
      const ask = async <Row extends pg.QueryResultRow>(sql: string, values: unknown[]): Promise<Row[]> =>
        (await client.query<Row>(sql, values)).rows;
      if ((await this.#draining(ask)) !== undefined) return undefined;
      const abandoned = await ask<{ topic: string; partition: number; owner: string }>(
        `select topic, partition, owner from ${schema}.consumer_cursor where group_name = $1 and owner is not null`,
        [from],
      );
      for (const topic of await source.topics()) await source.fence(topic, await source.placesIn(topic));
      const [group] = await ask<{ generation: number }>(
        `update ${schema}.consumer_group set follows = null, generation = generation + 1 where name = $1 returning generation`,
        [to],
      );
      const generation = group?.generation ?? 2;
      const handled = await copyHandled(client, log, { schema, from, to, generation });
      const parked = await moveRows(client, schema, 'parked_message', 'revision = p.revision + 1', [
        from,
        to,
        generation,
      ]);
      await moveRows(client, schema, 'suspect_attempt', undefined, [from, to, generation]);
      await client.query(`update ${schema}.inbox set group_name = $2 where group_name = $1`, [from, to]);
      // Those whose owner died keep its name: the next one has reason to look what it died of. Epochs go on rising.
      const places = await client.query(
        `update ${schema}.consumer_cursor c set group_name = $2, generation = $3, epoch = c.epoch + 1, wanted = null,
            owner = (select a.owner from unnest($4::text[], $5::int[], $6::text[]) a (topic, partition, owner)
              where a.topic = c.topic and a.partition = c.partition)
          where c.group_name = $1`,
        [
          ...[from, to, generation],
          abandoned.map(({ topic }) => topic),
          abandoned.map(({ partition }) => partition),
          abandoned.map(({ owner }) => owner),
        ],
      );
      await client.query(`update ${schema}.consumer_group set handed_over_at = now() where name = $1`, [from]);
      return { places: places.rowCount ?? 0, handled, parked };
    });
  }

  async #assertAgreed(source: LockedGroup, target: LockedGroup): Promise<void> {
    const { handsOverTo, handedOverAt } = await source.state();
    const { follows } = await target.state();
    if (handsOverTo === target.group && handedOverAt === null && follows === source.group) return;
    throw groupInUse(source.group, 'is not in this cutover any more: it was undone, or another one has begun.');
  }

  async #draining(ask: Ask): Promise<CutoverProgress | undefined> {
    const owners = await ask<{ owner: string; partitions: number }>(
      `select owner, count(*)::int as partitions from (
          select group_name, owner, topic, partition from ${this.#place.schema}.consumer_cursor
          union select group_name, member_id, topic, partition from ${this.#place.schema}.work_range
        ) c
        join ${this.#place.schema}.consumer_member m on m.group_name = c.group_name and m.member_id = c.owner
        where c.group_name = $1 and m.expires_at > clock_timestamp() group by 1 order by 1`,
      [this.#options.from],
    );
    if (owners.length === 0) return undefined;
    const partitions = owners.reduce((sum, each) => sum + each.partitions, 0);
    return { waitsFor: 'drain', members: owners.map(({ owner }) => owner), partitions };
  }

  /** Waits until nothing is waited for any more. */
  async #until(look: () => Promise<CutoverProgress | undefined>): Promise<void> {
    for (;;) {
      const progress = await look();
      if (progress === undefined) return;
      this.#tell(progress);
      if (performance.now() >= this.#deadline || this.#options.signal?.aborted === true) {
        throw gaveUp(this.#options, progress);
      }
      await pause(POLL_MS, this.#options.signal);
    }
  }

  #tell(progress: CutoverProgress): void {
    const text = JSON.stringify(progress);
    if (text === this.#told) return;
    this.#told = text;
    this.#options.onProgress?.(progress);
  }

  async #ask<Row extends pg.QueryResultRow>(sql: string, values: unknown[]): Promise<Row[]> {
    const client = await this.#place.database.connect();
    let failed = true;
    try {
      const { rows } = await client.query<Row>(sql, values);
      failed = false;
      return rows;
    } finally {
      client.release(failed);
    }
  }
}

type Ask = <Row extends pg.QueryResultRow>(sql: string, values: unknown[]) => Promise<Row[]>;

function placeOf({ database, schema = DEFAULT_SCHEMA }: CutoverGroups): GroupsPlace {
  return { database, schema: quoteSchema(schema), schemaName: schema };
}

async function setHandsOver(client: pg.PoolClient, schema: string, group: string, to: string | null): Promise<void> {
  await client.query(`update ${schema}.consumer_group set hands_over_to = $2 where name = $1`, [group, to]);
}

/** Gives rows to the new group; those of former generations, which no owner has looked at yet, stay such. */
async function moveRows(
  client: pg.PoolClient,
  schema: string,
  table: string,
  change: string | undefined,
  values: readonly [from: string, to: string, generation: number],
): Promise<number> {
  const { rowCount } = await client.query(
    `update ${schema}.${table} p set group_name = $2${change === undefined ? '' : `, ${change}`},
        generation = case when p.generation = c.generation then $3 else $3 - 1 end
      from ${schema}.consumer_cursor c
      where p.group_name = $1 and c.group_name = $1 and c.topic = p.topic and c.partition = p.partition`,
    [...values],
  );
  return rowCount ?? 0;
}

function assertTimeout(timeoutMs: number | undefined): void {
  if (timeoutMs === undefined || (typeof timeoutMs === 'number' && timeoutMs >= 0)) return;
  throw new TailraceError(
    'INVALID_OPTION',
    `cutOver: timeoutMs is ${shown(timeoutMs)}. Expected a number of milliseconds, 0 or more.`,
  );
}

function assertMayHandOver(group: string, to: string, state: GroupRowState): void {
  const { ephemeral, follows, handsOverTo, handedOverAt } = state;
  if (ephemeral) throw groupInUse(group, 'is ephemeral: it goes with its process. Nobody can take over from it.');
  if (follows !== null) throw groupInUse(group, `waits to take over from ${follows}: it has nothing to hand over.`);
  if (handedOverAt !== null) throw groupInUse(group, `has handed over to ${handsOverTo}: it has nothing to hand over.`);
  if (handsOverTo === null || handsOverTo === to) return;
  throw groupInUse(group, `is handing over to ${handsOverTo}. Let that end, or undo it: --abort.`);
}

function assertMayTakeOver(group: string, from: string, state: GroupRowState, hasPlaces: boolean): void {
  const { ephemeral, follows, handsOverTo, handedOverAt } = state;
  if (ephemeral) throw groupInUse(group, 'is ephemeral: it goes with its process. Nothing can be handed over to it.');
  if (follows === from || (handsOverTo === from && handedOverAt !== null)) return;
  if (follows !== null || handsOverTo !== null)
    throw groupInUse(group, `is in a cutover with ${follows ?? handsOverTo}.`);
  if (!hasPlaces) return;
  throw groupInUse(
    group,
    'has places of its own already. Expected a new group: begin the cutover before its first member is started, or delete it.',
  );
}

function gaveUp({ from, to }: CutoverGroups, progress: CutoverProgress): TailraceError {
  const rest = `${from} goes on as before.`;
  const problem =
    progress.waitsFor === 'members'
      ? `No member of ${to} handles ${progress.topics.join(', ')}. ${rest} Start its processes meanwhile, or do not wait for them.`
      : `${progress.partitions} partitions are still owned by ${progress.members.slice(0, 5).join(', ')}, whose handlers run, or whose static lease does. ${rest} Take more time, or stop these members.`;
  return new TailraceError('TIMEOUT', `The cutover from ${from} to ${to} has not come to its end. ${problem}`, {
    retryable: true,
    details: { from, to },
  });
}
