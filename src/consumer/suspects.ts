/**
 * Which records a former owner may have died of, after it left a partition without a word. What it had begun is, in each
 * lane, the first that is not handled, and lies below what it had reached. So each lane has one suspect, which is run alone,
 * with its attempt recorded before; once that has ended in whatever way, the rest of the lane is as good as any other.
 *
 * A lane that hands out batches has as many suspects as a batch may hold; records without a lane are each a lane.
 */
export class Suspects {
  readonly #below: bigint;
  readonly #ended = new Map<string, number>();

  /** `below`: the first offset that the former owner cannot have begun. */
  constructor(below: bigint) {
    this.#below = below;
  }

  /** Whether a record is one. `most`: how many of its lane can be. */
  has(offset: bigint, lane: string | undefined, most = 1): boolean {
    if (offset >= this.#below) return false;
    return lane === undefined || (this.#ended.get(lane) ?? 0) < most;
  }

  /** An attempt at a suspect is recorded: should it be the one, it is found out by itself. */
  clear(lane: string | undefined): void {
    if (lane !== undefined) this.#ended.set(lane, (this.#ended.get(lane) ?? 0) + 1);
  }
}
