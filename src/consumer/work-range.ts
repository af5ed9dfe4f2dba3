import { AssignedPartition } from './assigned-partition.ts';
import type { TakenPartition } from './group-tables.ts';
import type { Origin } from './origin.ts';

/** What a member of a work queue gets: records of a partition from `nextOffset` to `to`, and the lease that fences them. */
export interface TakenRange extends Omit<TakenPartition, 'reach'> {
  readonly lease: string;
  readonly to: bigint;
}

/** A range of records in the hands of this member. What it says of offsets ends at its end. */
export class WorkRange extends AssignedPartition {
  override readonly lease: string;
  readonly to: bigint;
  /** Offsets of records that are to be given back: they count as finished here. */
  readonly givenBack = new Set<bigint>();

  constructor(taken: TakenRange, origin: Origin) {
    // Its records have no order, so each of them may have been begun by a member that died.
    super({ ...taken, reach: taken.to }, origin, Number.POSITIVE_INFINITY);
    this.lease = taken.lease;
    this.to = taken.to;
    this.parked.load([]);
  }

  /** Whether all of it is in memory, or was. */
  get isFetched(): boolean {
    return this.isAtReach;
  }

  /** Whether all of it is handled, set aside or given back. */
  get isFinished(): boolean {
    return this.nextOffset >= this.to;
  }

  /** Records that are not finished. */
  get inHand(): number {
    return Number(this.to - this.fetchPosition.offset) + this.records;
  }

  override skipTo(offset: bigint): void {
    super.skipTo(offset < this.to ? offset : this.to);
  }

  /** A record is to go back to the group, as if it had not been begun. */
  giveBack(offset: bigint, bytes: number): void {
    this.givenBack.add(offset);
    this.finish(offset, bytes);
  }
}
