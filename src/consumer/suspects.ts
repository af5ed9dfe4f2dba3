/**
 * Which records a former owner may have died of, after it and the one before left a partition without a word. What it had
 * begun is, in each lane, the first unit that is not handled, and lies below what it had reached. So each lane has one
 * suspect unit, of which it is recorded before that it is begun; once that is so, the rest of the lane is as good as any other. Records without a lane were begun in their order, and no more of them than run at once.
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

  /** That a suspect is begun is recorded: should the process die of it, it is known the next time. */
  clear(lane: string | undefined): void {
    this.#ended.set(lane, (this.#ended.get(lane) ?? 0) + 1);
  }
}
