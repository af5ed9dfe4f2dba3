/**
 * Which transactions a moment sees: the value of `pg_current_snapshot()`. Transaction ids carry their epoch, and fit in a
 * number for the next few thousand years.
 *
 * @see https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
 */
export class Snapshot {
  /** Every transaction below it has ended. */
  readonly xmin: number;
  /** No transaction from it on had started to be seen. */
  readonly xmax: number;
  /** Those between the two that were in progress, ascending. */
  readonly inProgress: readonly number[];
  readonly #inProgress: ReadonlySet<number>;

  constructor(xmin: number, xmax: number, inProgress: readonly number[]) {
    this.xmin = xmin;
    this.xmax = xmax;
    this.inProgress = inProgress;
    this.#inProgress = new Set(inProgress);
  }

  /** Reads Postgres' text form, `xmin:xmax:xip,xip,…`. */
  static parse(text: string): Snapshot {
    const match = /^(\d+):(\d+):((?:\d+,)*\d+)?$/.exec(text);
    if (match === null) throw new TypeError(`Not a snapshot: ${text}`);
    const list = match[3] ?? '';
    return new Snapshot(Number(match[1]), Number(match[2]), list === '' ? [] : list.split(',').map(Number));
  }

  /** Whether rows of transaction `xid`, if it committed, are seen. */
  sees(xid: number): boolean {
    return xid < this.xmin || (xid < this.xmax && !this.#inProgress.has(xid));
  }

  toString(): string {
    return `${this.xmin}:${this.xmax}:${this.inProgress.join(',')}`;
  }
}

/** The snapshot that sees nothing: the difference from it is everything. */
export function emptySnapshot(): Snapshot {
  return new Snapshot(1, 1, []);
}
