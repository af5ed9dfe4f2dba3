/** A set of outbox positions, small in memory: a sorted array of 8 bytes each. */
export class PositionSet {
  readonly #sorted: Float64Array;

  private constructor(sorted: Float64Array) {
    this.#sorted = sorted;
  }

  /** @param sorted ascending, each once; `more` in any order. */
  static of(sorted: Float64Array, more: readonly number[] = []): PositionSet {
    if (more.length === 0) return new PositionSet(sorted);
    const all = new Float64Array(sorted.length + more.length);
    all.set(sorted);
    all.set(more, sorted.length);
    all.sort();
    return new PositionSet(all.filter((position, n) => position !== all[n - 1]));
  }

  get size(): number {
    return this.#sorted.length;
  }

  has(position: number): boolean {
    let low = 0;
    let high = this.#sorted.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const found = this.#sorted[middle] ?? 0;
      if (found === position) return true;
      if (found < position) low = middle + 1;
      else high = middle - 1;
    }
    return false;
  }

  toArray(): number[] {
    return [...this.#sorted];
  }
}
