/** What is known of a key of which something is parked. */
type KeyState =
  /** Nothing is under way: its first row waits for its time or for an operator. */
  | 'waiting'
  /** A look at its first row is in its lane, or that row is being handled. */
  | 'looking'
  /** The same, and something has changed since the look began: look again. */
  | 'changed';

/** The first row of a key that blocks, as the database has it. */
export interface KeyHead {
  readonly key: string;
  /** Whether it may be handled now: its time has come, and it is not dead. */
  readonly isReady: boolean;
}

/** What a look at the first row of a key has found, once it is done with: nothing, or what is to wait. */
export type LookEnd = 'none' | 'later';

/**
 * Which keys of a partition have rows in `parked_message` that block them, so that their records line up there in place of
 * being handled; and which rows that block nobody are being handled.
 *
 * A key is blocked from the commit of its first row on. It goes free only by a look that finds no row, taken in the lane of
 * the key: there nothing else of the key runs, so no row can be added between the look and what it says. All else that is
 * learnt (notifications, what is due) leads to a look and to nothing more.
 */
export class ParkedKeys {
  readonly #keys = new Map<string, KeyState>();
  readonly #alone = new Set<bigint>();
  #isLoaded = false;

  /** Whether it is known which keys are parked. Until then no record may be begun. */
  get isLoaded(): boolean {
    return this.#isLoaded;
  }

  /** How many keys are blocked. */
  get size(): number {
    return this.#keys.size;
  }

  /** How many rows that block nobody are in hand. */
  get alone(): number {
    return this.#alone.size;
  }

  /** Whether records of a key line up. */
  isBlocked(key: string | null): boolean {
    return key !== null && this.#keys.has(key);
  }

  /** A row that blocks the key has been committed. */
  block(key: string): void {
    if (!this.#keys.has(key)) this.#keys.set(key, 'waiting');
  }

  /** Something may have changed in the rows of a key. True: put a look into its lane. */
  look(key: string): boolean {
    const state = this.#keys.get(key);
    if (state === undefined || state === 'waiting') {
      this.#keys.set(key, 'looking');
      return true;
    }
    this.#keys.set(key, 'changed');
    return false;
  }

  /** The look, or the handling that followed it, has ended. True: look once more, at once. */
  settle(key: string, end: LookEnd | 'handled'): boolean {
    if (end === 'handled' || this.#keys.get(key) === 'changed') {
      this.#keys.set(key, 'looking');
      return true;
    }
    if (end === 'none') this.#keys.delete(key);
    else this.#keys.set(key, 'waiting');
    return false;
  }

  /** Takes in what the database says of all keys. Returns those at which to look. */
  load(heads: readonly KeyHead[]): string[] {
    this.#isLoaded = true;
    const found = new Set(heads.map(({ key }) => key));
    const gone = [...this.#keys.keys()].filter((key) => !found.has(key));
    for (const { key } of heads) this.block(key);
    return [...heads.filter(({ isReady }) => isReady).map(({ key }) => key), ...gone];
  }

  /** A row that blocks nobody is due. True: put a look at it into its lane. */
  takeAlone(offset: bigint): boolean {
    if (this.#alone.has(offset)) return false;
    this.#alone.add(offset);
    return true;
  }

  /** It is done with. */
  leaveAlone(offset: bigint): void {
    this.#alone.delete(offset);
  }
}
