/** Lets records run one at a time that were begun when a process died, so that it is known which one the process died of. */
export class SuspectGate<Unit> {
  #inside: Unit | undefined;
  #waiting: Unit[] = [];

  /** Whether a suspect may run now. If not, it waits: see {@link next}. */
  admit(unit: Unit): boolean {
    if (this.#inside === undefined || this.#inside === unit) {
      this.#inside = unit;
      return true;
    }
    this.#waiting.push(unit);
    return false;
  }

  /** It has ended, and this process has not. Does nothing for others. */
  leave(unit: Unit): void {
    if (this.#inside === unit) this.#inside = undefined;
  }

  /** Forgets those that will not run, or whose end means nothing any more. */
  drop(isGone: (unit: Unit) => boolean): void {
    this.#waiting = this.#waiting.filter((unit) => !isGone(unit));
    if (this.#inside !== undefined && isGone(this.#inside)) this.#inside = undefined;
  }

  /** One that has waited and may ask again, if there is room. It is named once. */
  next(): Unit | undefined {
    return this.#inside === undefined ? this.#waiting.shift() : undefined;
  }
}
