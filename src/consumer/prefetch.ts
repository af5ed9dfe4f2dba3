import type { FetchPosition } from '../broker/log.ts';

/** How much may be in memory. */
export interface PrefetchLimits {
  readonly records: number;
  readonly bytes: number;
}

/** A partition that can be fetched, and what is in memory of it. */
export interface PrefetchPartition {
  readonly fetchPosition: FetchPosition;
  readonly records: number;
  readonly bytes: number;
}

/** One fetch. */
export interface FetchPlan<Partition> {
  readonly partitions: readonly Partition[];
  readonly maxRecords: number;
  /** Of one partition. */
  readonly maxRecordsEach: number;
  readonly maxBytes: number;
  /** How long it may wait with nothing to bring. It ends at once when there is something else to fetch. */
  readonly maxWaitMs: number;
}

/** Decides the next fetch; `turn` counts them. `undefined`: nothing has room. */
export type FetchPlanner<Partition> = (
  partitions: readonly Partition[],
  limits: PrefetchLimits,
  turn: number,
) => FetchPlan<Partition> | undefined;

/** Of one fetch with nothing to bring. */
const LONGEST_WAIT_MS = 5_000;
/** The same, where others wait for it. */
const SHORT_WAIT_MS = 100;

/** A range of a partition that can be fetched, and what is in memory of it. */
export interface PrefetchRange extends PrefetchPartition {
  /** The first offset behind it. */
  readonly to: bigint;
}

/**
 * Decides which range to fetch: how many records are in hand was decided when the ranges were taken, so that only their bytes
 * count. One range at a time, since a fetch knows no end; those that are further behind first, in turns.
 */
export function planRangeFetch<Range extends PrefetchRange>(
  ranges: readonly Range[],
  limits: PrefetchLimits,
  turn: number,
): FetchPlan<Range> | undefined {
  const bytes = ranges.reduce((sum, range) => sum + range.bytes, 0);
  const open = ranges.filter(({ to, fetchPosition }) => fetchPosition.offset < to);
  const next = open[turn % Math.max(1, open.length)];
  if (next === undefined || bytes >= limits.bytes) return undefined;
  const maxRecords = Number(next.to - next.fetchPosition.offset);
  return {
    partitions: [next],
    maxRecords,
    maxRecordsEach: maxRecords,
    maxBytes: limits.bytes - bytes,
    maxWaitMs: open.length > 1 ? SHORT_WAIT_MS : LONGEST_WAIT_MS,
  };
}

/**
 * Decides what to fetch: each partition has an equal share of the limits, a partition that has used less than half of its
 * share is fetched, and one fetch brings at most the other half of each. So a partition whose keys are blocked keeps its share
 * of records and nothing of the others'. Bytes are not shared out in a fetch: large messages of one partition may take what
 * others do not need now, and each of these still gets half of its share, beyond the limit if need be. `turn` changes which
 * partition is named first, since a log may fill a fetch from the first alone. `undefined`: no partition has room.
 */
export function planFetch<Partition extends PrefetchPartition>(
  partitions: readonly Partition[],
  limits: PrefetchLimits,
  turn: number,
): FetchPlan<Partition> | undefined {
  const open = partitions.filter((partition) => hasRoom(partition, limits, partitions.length));
  if (open.length === 0) return undefined;
  const first = turn % open.length;
  // Rounded down, so that a partition with one half in hand has room for the other: it is fetched while that one is handled.
  const records = Math.max(1, Math.floor(halfShare(limits.records, partitions.length)));
  const bytes = Math.ceil(halfShare(limits.bytes, partitions.length));
  const bytesLeft = limits.bytes - partitions.reduce((sum, partition) => sum + partition.bytes, 0);
  return {
    partitions: [...open.slice(first), ...open.slice(0, first)],
    maxRecords: records * open.length,
    maxRecordsEach: records,
    maxBytes: Math.max(bytes, Math.min(bytes * open.length, bytesLeft)),
    maxWaitMs: LONGEST_WAIT_MS,
  };
}

/** Whether a partition, one of `count`, has used less than half of its share. */
export function hasRoom(partition: PrefetchPartition, limits: PrefetchLimits, count: number): boolean {
  return partition.records < halfShare(limits.records, count) && partition.bytes < halfShare(limits.bytes, count);
}

function halfShare(limit: number, count: number): number {
  return limit / count / 2;
}
