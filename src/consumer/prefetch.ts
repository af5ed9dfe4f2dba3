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
  readonly maxBytes: number;
}

/**
 * Decides what to fetch: each partition has an equal share of the limits, a partition that has used less than half of its
 * share is fetched, and one fetch brings at most the other half. So a partition whose keys are blocked keeps its share and
 * nothing of the others'. `turn` changes which partition is named first, since a log may fill a fetch from the first alone.
 * `undefined`: no partition has room.
 */
export function planFetch<Partition extends PrefetchPartition>(
  partitions: readonly Partition[],
  limits: PrefetchLimits,
  turn: number,
): FetchPlan<Partition> | undefined {
  const open = partitions.filter((partition) => hasRoom(partition, limits, partitions.length));
  if (open.length === 0) return undefined;
  const first = turn % open.length;
  return {
    partitions: [...open.slice(first), ...open.slice(0, first)],
    maxRecords: Math.ceil(halfShare(limits.records, partitions.length)),
    maxBytes: Math.ceil(halfShare(limits.bytes, partitions.length)),
  };
}

/** Whether a partition, one of `count`, has used less than half of its share. */
export function hasRoom(partition: PrefetchPartition, limits: PrefetchLimits, count: number): boolean {
  return partition.records < halfShare(limits.records, count) && partition.bytes < halfShare(limits.bytes, count);
}

function halfShare(limit: number, count: number): number {
  return limit / count / 2;
}
