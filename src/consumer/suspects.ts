/**
 * Which records a former owner may have died of, after it and the one before left a partition without a word. What it had
 * begun is, in each lane, the first unit that is not handled, and lies below what it had reached. So each lane has one
 * suspect unit, which is run by itself, with its attempt recorded before; once that has ended in whatever way, the rest of the lane
 * is as good as any other. Records without a lane were begun in their order, and no more of them than run at once.
 */
export class Suspects {
  readonly #below: bigint;
  readonly #mostWithoutLane: number;
  readonly #ended = new Map<string | undefined, number>();

  /** `below`: the first offset that the former owner cannot have begun. */
  constructor(below: bigint, mostWithoutLane: number) {
    this.#below = below;
    this.#mostWithoutLane = mostWithoutLane;
  }

  /** Whether a record is one. */
  has(offset: bigint, lane: string | undefined): boolean {
    if (offset >= this.#below) return false;
    return (this.#ended.get(lane) ?? 0) < (lane === undefined ? this.#mostWithoutLane : 1);
  }

  /** An attempt at a suspect is recorded: should it be the one, it is found out by itself. */
  clear(lane: string | undefined): void {
    this.#ended.set(lane, (this.#ended.get(lane) ?? 0) + 1);
  }
}
