import type { FetchPosition } from '../broker/log.ts';
import { REACH, type TakenPartition } from './group-tables.ts';
import { InboxWindow } from './inbox-window.ts';
import { LowMark } from './low-mark.ts';
import type { ProgressingHolding } from './progressing-holding.ts';
import type { Origin } from './origin.ts';
import { ParkedKeys } from './parked-keys.ts';
import { Suspects } from './suspects.ts';

/** `owned → revoking → released`, and from the first two to `lost` at any moment. */
export type AssignmentState = 'owned' | 'revoking' | 'released' | 'lost';

/** One assignment of a partition to this member, from its taking to its end. Taken again, it is another one. */
export class AssignedPartition implements ProgressingHolding {
  readonly topic: string;
  readonly partition: number;
  readonly epoch: bigint;
  readonly generation: number;
  readonly origin: Origin;
  /** What fences a range of records that this member has of a work queue, in place of the epoch. */
  readonly lease: string | undefined = undefined;
  /** Records below it were handled in an earlier generation, but for a few. */
  readonly replayBelow: bigint;
  /** Records from here on were not. */
  readonly replayUntil: bigint;
  /** What is in memory of it: fetched and not finished. */
  records = 0;
  bytes = 0;
  /** Units of it that run. */
  running = 0;
  /** What is parked of it. */
  readonly parked = new ParkedKeys();
  /** What a former owner may have died of. */
  readonly suspects: Suspects;
  /** What is stored of it. */
  readonly inbox: InboxWindow;
  readonly #mark: LowMark;
  readonly #replayExcept: ReadonlySet<bigint>;
  readonly #abort = new AbortController();
  #state: AssignmentState = 'owned';
  #reach: bigint;

  /** `concurrency`: how many units of a member run at once. */
  constructor(taken: TakenPartition, origin: Origin, concurrency: number) {
    this.topic = taken.topic;
    this.partition = taken.partition;
    this.epoch = taken.epoch;
    this.generation = taken.generation;
    this.replayBelow = taken.replayBelow;
    this.replayUntil = taken.replayUntil;
    this.#replayExcept = new Set(taken.replayExcept);
    this.origin = origin;
    this.#mark = new LowMark(taken.nextOffset);
    this.#reach = taken.reach;
    this.suspects = new Suspects(taken.suspectBelow, concurrency);
    this.inbox = new InboxWindow(this, taken.nextOffset, taken.storedTo);
  }

  get state(): AssignmentState {
    return this.#state;
  }

  get revoking(): boolean {
    return this.#state === 'revoking';
  }

  get drained(): boolean {
    return this.#state === 'revoking' && this.running === 0;
  }

  /** Whether what its handlers have done may still be committed. */
  get mayCommit(): boolean {
    return this.#state === 'owned' || this.#state === 'revoking';
  }

  /** Fires when nothing of it may be committed any more, or handlers have had their time to end. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get nextOffset(): bigint {
    return this.#mark.value;
  }

  /** Where to fetch next. */
  get fetchPosition(): FetchPosition {
    return { topic: this.topic, partition: this.partition, offset: this.#mark.end };
  }

  /** Whether a record is known to have been handled in an earlier generation, without asking the database. */
  isReplay(offset: bigint): boolean {
    return offset < this.replayBelow && !this.#replayExcept.has(offset);
  }

  get wantedReach(): bigint {
    return this.#mark.end + REACH;
  }

  get isNearReach(): boolean {
    return this.#mark.end + REACH / 2n >= this.#reach;
  }

  /** Whether nothing more may be begun before the group's table says so. */
  get isAtReach(): boolean {
    return this.#mark.end >= this.#reach;
  }

  mayReach(offset: bigint): void {
    this.#reach = offset;
  }

  /** Takes a fetched record in. */
  open(offset: bigint, bytes: number): void {
    this.#mark.open(offset);
    this.records += 1;
    this.bytes += bytes;
  }

  /** Goes on at an offset further on. What was taken in before is finished first. */
  skipTo(offset: bigint): void {
    this.#mark.skipTo(offset);
  }

  /** A record is handled, parked, or stepped over. */
  finish(offset: bigint, bytes: number): void {
    this.#mark.finish(offset);
    this.forget(bytes);
  }

  /** The same for a record that was dropped from memory before. */
  protected settle(offset: bigint): void {
    this.#mark.finish(offset);
  }

  /** A record is dropped from memory without being finished. */
  forget(bytes: number): void {
    this.records -= 1;
    this.bytes -= bytes;
  }

  /** Begin nothing more. Changes nothing once the assignment has ended. */
  revoke(): void {
    if (this.#state === 'owned') this.#state = 'revoking';
  }

  /** Handlers have had their time. */
  hurry(): void {
    this.#abort.abort();
  }

  /** The assignment ends. */
  end(state: 'released' | 'lost'): void {
    this.#state = state;
    this.#abort.abort();
  }
}
