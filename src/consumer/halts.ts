import { backoffMs, type Backoff } from '../base/backoff.ts';

/** Waits before a partition that the log could not give is asked for again. */
const BACKOFF: Backoff = { initialMs: 200, maxMs: 10_000 };

interface Halt {
  readonly error: unknown;
  readonly failures: number;
  /** Runs until the partition may be tried again. */
  readonly timer: NodeJS.Timeout;
  isDue: boolean;
}

/** Partitions that the log cannot give, each by itself: tried again after waits that grow, while the others go on. */
export class Halts<Partition> {
  readonly #halts = new Map<Partition, Halt>();
  readonly #onDue: () => void;

  /** `onDue` is called when a partition may be tried again. */
  constructor(onDue: () => void) {
    this.#onDue = onDue;
  }

  /** Whether a partition is not to be asked for now. */
  holds(partition: Partition): boolean {
    return this.#halts.get(partition)?.isDue === false;
  }

  /** The last error of a partition that has not been fetched since. */
  get error(): unknown {
    for (const { error } of this.#halts.values()) return error;
    return undefined;
  }

  /** The partition could not be fetched. Returns how often in a row. */
  halt(partition: Partition, error: unknown): number {
    const failures = (this.#halts.get(partition)?.failures ?? 0) + 1;
    this.clear(partition);
    const halt: Halt = {
      error,
      failures,
      isDue: false,
      timer: setTimeout(
        () => {
          halt.isDue = true;
          this.#onDue();
        },
        backoffMs(failures, BACKOFF),
      ),
    };
    this.#halts.set(partition, halt);
    return failures;
  }

  /** The partition was fetched, or is nobody's business here any more. */
  clear(partition: Partition): void {
    clearTimeout(this.#halts.get(partition)?.timer);
    this.#halts.delete(partition);
  }

  /** Forgets all but these. */
  retain(partitions: readonly Partition[]): void {
    for (const partition of this.#halts.keys()) if (!partitions.includes(partition)) this.clear(partition);
  }
}
