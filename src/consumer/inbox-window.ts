import type { FetchPosition } from '../broker/log.ts';
import type { Origin } from './origin.ts';

/** The partition whose records are stored. */
export interface WindowOwner {
  readonly topic: string;
  readonly partition: number;
  readonly state: string;
  readonly origin: Origin;
  /** Every record below it is handled or set aside. */
  readonly nextOffset: bigint;
  /** Where to read next for handlers. */
  readonly fetchPosition: FetchPosition;
  /** Goes on at an offset further on. */
  skipTo(offset: bigint): void;
}

/** Records that were stored together. */
interface Chunk {
  /** All of them are below it. */
  readonly below: bigint;
  readonly records: number;
  readonly bytes: number;
}

/**
 * What is in the inbox of one assignment, as far as its owner knows: the records below `to` that are not handled. It can be
 * fetched as a partition can: what is fetched then is stored.
 */
export class InboxWindow {
  /** Whether handlers may read it: the log was asked about it, or does not answer. */
  isReadable: boolean;
  /** Whether it is known to hold what the log gives at these offsets, where the log still has them. */
  isOfLog: boolean;
  /** Whether it is known how much it holds. */
  isCounted: boolean;
  /** Rows below it are removed; -1: that is not known. */
  trimmedTo: bigint;
  readonly #owner: WindowOwner;
  readonly #chunks: Chunk[] = [];
  #to: bigint;
  #position: bigint;

  /** `place`: where the group is. `to`: where what is stored ends; at the place or before it, nothing is. */
  constructor(owner: WindowOwner, place: bigint, to: bigint) {
    this.#owner = owner;
    this.#to = to;
    this.#position = to > place ? to : place;
    const isEmpty = to <= place;
    this.isReadable = isEmpty;
    this.isOfLog = isEmpty;
    this.isCounted = isEmpty;
    this.trimmedTo = to > 0n ? -1n : 0n;
  }

  get topic(): string {
    return this.#owner.topic;
  }

  get partition(): number {
    return this.#owner.partition;
  }

  get state(): string {
    return this.#owner.state;
  }

  get origin(): Origin {
    return this.#owner.origin;
  }

  /** Where what is stored ends. */
  get to(): bigint {
    return this.#to;
  }

  /** Where to fetch from the log next. */
  get fetchPosition(): FetchPosition {
    return { topic: this.topic, partition: this.partition, offset: this.#position };
  }

  /** About how many records are stored and not handled: what was stored together counts until all of it is handled. */
  get records(): number {
    return this.#sum('records');
  }

  get bytes(): number {
    return this.#sum('bytes');
  }

  /** Whether the next record for handlers is stored. */
  get isAhead(): boolean {
    return this.#owner.fetchPosition.offset < this.#to;
  }

  /** Whether rows may be there that are not needed any more. */
  get isUntrimmed(): boolean {
    return this.trimmedTo < this.#to && this.trimmedTo < this.#owner.nextOffset;
  }

  /** Records were stored. `below`: the offset after the last of them. */
  add(below: bigint, records: number, bytes: number): void {
    this.#to = below;
    if (below > this.#position) this.#position = below;
    this.#chunks.push({ below, records, bytes });
  }

  /** What the database says is stored. */
  reset(to: bigint, records: number, bytes: number): void {
    this.#chunks.length = 0;
    this.add(to, records, bytes);
    this.isCounted = true;
  }

  /** The log may have lost what is stored. */
  doubt(): void {
    this.isOfLog = this.#to <= this.#owner.nextOffset;
  }

  /** The log has nothing from where it was read to this offset. */
  skipTo(offset: bigint): void {
    if (offset > this.#position) this.#position = offset;
    this.passGap();
  }

  /** Once all that is stored is taken in, offsets that the log has no record for count as finished. */
  passGap(): void {
    if (!this.isAhead) this.#owner.skipTo(this.#position);
  }

  #sum(of: 'records' | 'bytes'): number {
    for (
      let [first] = this.#chunks;
      first !== undefined && first.below <= this.#owner.nextOffset;
      [first] = this.#chunks
    )
      this.#chunks.shift();
    return this.#chunks.reduce((sum, chunk) => sum + chunk[of], 0);
  }
}
