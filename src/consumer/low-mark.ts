/**
 * How far a partition is finished, while its records finish in any order: the low mark is the first offset that is not
 * finished. Remembers only the unfinished offsets, so its memory is bounded by what is in flight.
 */
export class LowMark {
  readonly #open = new Set<bigint>();
  #end: bigint;

  /** `start` is the first offset that will be opened. */
  constructor(start: bigint) {
    this.#end = start;
  }

  /** Takes an offset in. Offsets come in ascending order; what lies between two of them counts as finished. */
  open(offset: bigint): void {
    if (offset < this.#end) throw new RangeError(`Offset ${offset} comes after ${this.#end - 1n}`);
    this.#open.add(offset);
    this.#end = offset + 1n;
  }

  /** The next offset to be opened is `offset`, or a later one. What lies between counts as finished. */
  skipTo(offset: bigint): void {
    if (offset > this.#end) this.#end = offset;
  }

  /** Marks an offset as finished. Doing so again changes nothing. */
  finish(offset: bigint): void {
    this.#open.delete(offset);
  }

  /** Every offset below this one is finished. Never moves back. */
  get value(): bigint {
    for (const first of this.#open) return first;
    return this.#end;
  }

  /** The first offset that was not taken in yet. */
  get end(): bigint {
    return this.#end;
  }
}
