import { types } from 'node:util';
import { TailraceError } from '../base/errors.ts';
import type { Log, PartitionEnds } from '../broker/log.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import {
  assertFlag,
  assertGiven,
  assertLog,
  groupInUse,
  inGroup,
  type GroupDatabase,
  type LockedGroup,
  type StoredPlace,
} from './group-admin.ts';
import { shown, unknownName } from './option-checks.ts';

/**
 * Where a group is to go on: at an offset, at the first record appended at a time or later, at the first or behind the last
 * record, or by so many records further (below 0: back) than it is.
 */
export type SeekTarget =
  'earliest' | 'latest' | { readonly offset: bigint } | { readonly time: Date } | { readonly by: bigint };

/** What {@link seekGroup} is to do. */
export interface SeekOptions {
  /** Where the group's records are. */
  readonly log: Log;
  /** The database that the group's handlers write to: a `pg.Pool`, or whatever hands out clients as it does. */
  readonly database: GroupDatabase;
  readonly group: string;
  readonly topic: string;
  /** @defaultValue all partitions that the group knows */
  readonly partition?: number;
  readonly to: SeekTarget;
  /** Only say what would be changed. @defaultValue false */
  readonly dryRun?: boolean;
  /** The schema of tailrace's tables. @defaultValue 'tailrace' */
  readonly schema?: string;
}

/** The place of a group in a partition, before and after. */
export interface SeekMove {
  readonly partition: number;
  readonly from: bigint;
  readonly to: bigint;
}

/** A place that a group has. */
export interface KnownPlace {
  readonly partition: number;
  readonly nextOffset: bigint;
  /** Records from here on and below `storedTo` are in the inbox, whatever the log has. */
  readonly storedFrom?: bigint;
  readonly storedTo?: bigint;
}

/**
 * Moves a group to another place in a topic, whether or not its members run: these drop what they hold of the partitions,
 * nothing of it is committed any more, and they go on at the new place. Where the place moves back, the records from there
 * on are handled again, as replays (`HandlerContext.isReplay`); where it moves forward, the records between are not handled,
 * and what was handled beyond stays handled. All partitions move, or none. Places are as the group has stored them, which it
 * does every `cursorIntervalMs`.
 *
 * @throws TailraceError `UNKNOWN_GROUP`: no such group, or it has no place there; `UNKNOWN_TOPIC`; `OFFSET_OUT_OF_RANGE`;
 * `GROUP_IN_USE`: messages are set aside that the log has lost; `INVALID_OPTION`, also for a time in the future; `NOT_MIGRATED`.
 */
export async function seekGroup(options: SeekOptions): Promise<SeekMove[]> {
  assertOptions(options);
  const { log, database, group, topic, partition, dryRun = false, schema = DEFAULT_SCHEMA } = options;
  const to = checkedTarget(options.to);
  assertLog('seekGroup', log);
  return inGroup({ database, schema: quoteSchema(schema), schemaName: schema, group }, async (locked) => {
    const known = await locked.placesIn(topic, partition);
    if (known.length === 0) throw noPlace(group, topic, partition);
    // From here on no handler's transaction of these partitions commits, so that the ends are beyond all that was handled.
    if (!dryRun) await locked.fence(topic, known);
    const places = await locked.placesIn(topic, partition);
    const ends = await endsOf(log, topic, places);
    const moves = planSeek(topic, places, ends, to, await timesOf(log, topic, to));
    if (!dryRun) await move(locked, topic, moves, ends);
    return moves;
  });
}

async function move(locked: LockedGroup, topic: string, moves: readonly SeekMove[], ends: readonly PartitionEnds[]) {
  const endOf = new Map(ends.map(({ partition, end }) => [partition, end]));
  const ending = moves.map((each) => ({ ...each, end: endOf.get(each.partition) ?? 0n }));
  for (const each of ending) if (each.from > each.end) await assertNothingParkedBeyond(locked, topic, each);
  await locked.move(topic, ending);
}

/** What is parked is known by its offset. Beyond the end of a log that lost it, offsets are given out again. */
async function assertNothingParkedBeyond(
  locked: LockedGroup,
  topic: string,
  { partition, end }: { readonly partition: number; readonly end: bigint },
): Promise<void> {
  const { rows } = await locked.client.query<{ count: number; dead: number }>(
    `select count(*)::int as count, count(*) filter (where dead)::int as dead from ${locked.schema}.parked_message
      where group_name = $1 and topic = $2 and partition = $3 and record_offset >= $4`,
    [locked.group, topic, partition, end.toString()],
  );
  const { count = 0, dead = 0 } = rows[0] ?? {};
  if (count === 0) return;
  throw groupInUse(
    locked.group,
    `has ${count} messages set aside in ${topic} partition ${partition} that its log has lost, ${dead} of them dead letters, and their offsets, from ${end} on, would be given out again. Expected none: discard or redrive the dead letters (tailrace dead-letters), let the others be retried, and move the group then. Nothing was changed.`,
  );
}

/**
 * The moves that bring a group from its places to the target.
 *
 * @param times where the records of the target's time begin, by partition.
 * @throws TailraceError `OFFSET_OUT_OF_RANGE`: a partition has no such place; nothing is bent to what there is.
 */
export function planSeek(
  topic: string,
  places: readonly KnownPlace[],
  ends: readonly PartitionEnds[],
  target: SeekTarget,
  times: ReadonlyMap<number, bigint> = new Map(),
): SeekMove[] {
  const byPartition = new Map(ends.map((end) => [end.partition, end]));
  return places.map((place) => {
    const { partition, nextOffset: from } = place;
    const { start, end } = reachOf(place, byPartition.get(partition));
    const to = placeOf(target, { from, start, end, ofTime: times.get(partition) ?? end });
    if (to >= start && to <= end) return { partition, from, to };
    throw new TailraceError(
      'OFFSET_OUT_OF_RANGE',
      `The group cannot be moved to offset ${to} of ${topic} partition ${partition}: expected ${start} to ${end}. Nothing was changed. Choose a place in between, or move to the earliest or the latest${places.length > 1 ? ', or move the partitions that have such a place one by one (partition; in the command, --partition)' : ''}.`,
      { details: { topic, partition, offset: to, start, end } },
    );
  });
}

/** What can be read of a partition: what the log has, and what is stored. */
function reachOf({ storedFrom = 0n, storedTo = 0n }: KnownPlace, ends: PartitionEnds | undefined): StartAndEnd {
  const { start, end } = ends ?? { start: storedFrom, end: storedTo };
  if (storedFrom >= storedTo) return { start, end };
  return { start: storedFrom < start ? storedFrom : start, end: storedTo > end ? storedTo : end };
}

type StartAndEnd = Pick<PartitionEnds, 'start' | 'end'>;

interface PlaceFacts {
  readonly from: bigint;
  readonly start: bigint;
  readonly end: bigint;
  readonly ofTime: bigint;
}

function placeOf(target: SeekTarget, { from, start, end, ofTime }: PlaceFacts): bigint {
  if (target === 'earliest') return start;
  if (target === 'latest') return end;
  if ('offset' in target) return target.offset;
  return 'by' in target ? from + target.by : ofTime;
}

async function endsOf(log: Log, topic: string, places: readonly StoredPlace[]): Promise<PartitionEnds[]> {
  const ends = await log.ends(topic);
  if (ends.length > 0 || places.some(({ storedFrom, storedTo }) => storedFrom < storedTo)) return ends;
  throw new TailraceError(
    'UNKNOWN_TOPIC',
    `There is no topic ${JSON.stringify(topic.slice(0, 200))} in the log, so that nobody can be moved in it.`,
    { details: { topic: topic.slice(0, 200) } },
  );
}

async function timesOf(log: Log, topic: string, target: SeekTarget): Promise<ReadonlyMap<number, bigint>> {
  if (typeof target === 'string' || !('time' in target)) return new Map();
  const places = await log.offsetsAt(topic, target.time);
  return new Map(places.map(({ partition, offset }) => [partition, offset]));
}

const OPTIONS: readonly string[] = Object.keys({
  log: true,
  database: true,
  group: true,
  topic: true,
  partition: true,
  to: true,
  dryRun: true,
  schema: true,
} satisfies Record<keyof SeekOptions, true>);

/** A misspelt `dryRun` would have the group moved, and a misspelt `partition` all of them. */
function assertOptions(options: SeekOptions): void {
  assertGiven('seekGroup', options, ['group', 'topic']);
  const unknown = unknownName(options, OPTIONS);
  if (unknown !== undefined) throw invalid(`there is no option ${unknown}. Expected ${OPTIONS.join(', ')}.`);
  const { partition, dryRun } = options;
  assertFlag('seekGroup', 'dryRun', dryRun);
  if (partition === undefined || (Number.isInteger(partition) && partition >= 0)) return;
  throw invalid(`partition is ${shown(partition)}. Expected a whole number, 0 or more.`);
}

function invalid(problem: string): TailraceError {
  return new TailraceError('INVALID_OPTION', `seekGroup: ${problem}`);
}

/** By how much a time may be ahead of this process's clock, since it may come from another one. */
const CLOCK_DIFFERENCE_MS = 60_000;

function checkedTarget(target: SeekTarget): SeekTarget {
  if (!isTarget(target)) {
    throw invalid(
      `to is ${shown(target)}. Expected 'earliest', 'latest', { offset: 5n }, { time: new Date(…) } or { by: -10n }.`,
    );
  }
  if (typeof target === 'string' || !('time' in target)) return target;
  const ms = target.time.getTime();
  if (ms <= Date.now() + CLOCK_DIFFERENCE_MS) return target;
  const found = Number.isNaN(ms) ? 'a Date that is no time' : `${target.time.toISOString()}, which is in the future`;
  throw invalid(`time is ${found}. Expected a time that has passed, or 'latest'.`);
}

function isTarget(target: unknown): boolean {
  if (target === 'earliest' || target === 'latest') return true;
  if (typeof target !== 'object' || target === null || Object.keys(target).length !== 1) return false;
  const { offset, time, by } = target as Readonly<Record<string, unknown>>;
  return typeof offset === 'bigint' || types.isDate(time) || typeof by === 'bigint';
}

function noPlace(group: string, topic: string, partition: number | undefined): TailraceError {
  const where = partition === undefined ? `topic ${topic}` : `partition ${partition} of topic ${topic}`;
  return new TailraceError(
    'UNKNOWN_GROUP',
    `The group ${group} has no place in ${where}: it has never read it. tailrace groups describe ${group} shows where it has one.`,
    { details: { group, topic, ...(partition !== undefined && { partition }) } },
  );
}
