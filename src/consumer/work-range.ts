import { AssignedPartition } from './assigned-partition.ts';
import type { TakenPartition } from './group-tables.ts';
import type { Origin } from './origin.ts';

/** What a member of a work queue gets: records of a partition from `nextOffset` to `to`, and the lease that fences them. */
export interface TakenRange extends Omit<TakenPartition, 'reach' | 'storedTo'> {
  readonly lease: string;
  readonly to: bigint;
}

/** Records that go back to the group: from `from` to before `to`. */
export interface GivenBack {
  readonly from: bigint;
  readonly to: bigint;
  /** Whether their handler has released them, so that another member is to try. */
  readonly isReleased: boolean;
}

/** A range of records in the hands of this member. What it says of offsets ends at its end. */
export class WorkRange extends AssignedPartition {
  override readonly lease: string;
  readonly to: bigint;
  #givenBack: readonly GivenBack[] = [];

  constructor(taken: TakenRange, origin: Origin) {
    // Its records have no order, so each of them may have been begun by a member that died.
    super({ ...taken, reach: taken.to, storedTo: taken.nextOffset }, origin, Number.POSITIVE_INFINITY);
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

  /** What is to go back to the group, in order; here it counts as finished. */
  get givenBack(): readonly GivenBack[] {
    return this.#givenBack;
  }

  override skipTo(offset: bigint): void {
    super.skipTo(offset < this.to ? offset : this.to);
  }

  /** A record goes back to the group as if it had not been begun: its handler says so. */
  release(offset: bigint, bytes: number): void {
    this.#give(offset, offset + 1n, true);
    this.finish(offset, bytes);
  }

  /** What does not run goes back to the group: records that were dropped from memory, in their order, and all that follow. */
  giveBackRest(dropped: readonly bigint[]): void {
    for (const offset of dropped) {
      this.#give(offset, offset + 1n, false);
      this.settle(offset);
    }
    const { offset } = this.fetchPosition;
    if (offset < this.to) this.#give(offset, this.to, false);
    this.skipTo(this.to);
  }

  /** The group has it back. */
  handedIn(given: readonly GivenBack[]): void {
    this.#givenBack = this.#givenBack.filter((one) => !given.includes(one));
  }

  #give(from: bigint, to: bigint, isReleased: boolean): void {
    const last = this.#givenBack.at(-1);
    const isNext = last?.to === from && last.isReleased === isReleased && !isReleased;
    const before = isNext ? this.#givenBack.slice(0, -1) : this.#givenBack;
    this.#givenBack = [...before, { from: isNext ? last.from : from, to, isReleased }];
  }
}
