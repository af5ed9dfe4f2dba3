/** The upper bounds of the buckets, in milliseconds: from a handler that writes one row to one that asks elsewhere. */
const BOUNDS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000] as const;

/** How long attempts at records of a topic took: from taking a client to the commit, or to what undid it. */
export interface AttemptDurations {
  readonly topic: string;
  readonly count: number;
  readonly sumMs: number;
  /** How many took at most `maxMs`, cumulative. Longer ones are in `count` alone. */
  readonly buckets: readonly { readonly maxMs: number; readonly count: number }[];
}

interface Histogram {
  /** Not cumulative; the last one has what is longer than all bounds. */
  readonly counts: number[];
  sumMs: number;
}

/** Counts attempts by how long they took, for each topic. */
export class DurationCounts {
  readonly #topics = new Map<string, Histogram>();

  add(topic: string, durationMs: number): void {
    const histogram = this.#histogramOf(topic);
    const bucket = BOUNDS_MS.findIndex((bound) => durationMs <= bound);
    const at = bucket === -1 ? BOUNDS_MS.length : bucket;
    histogram.counts[at] = (histogram.counts[at] ?? 0) + 1;
    histogram.sumMs += durationMs;
  }

  /** The counts so far, by topic. */
  read(): AttemptDurations[] {
    return [...this.#topics].map(([topic, { counts, sumMs }]) => {
      let count = 0;
      const buckets = BOUNDS_MS.map((maxMs, at) => ({ maxMs, count: (count += counts[at] ?? 0) }));
      return { topic, count: count + (counts[BOUNDS_MS.length] ?? 0), sumMs, buckets };
    });
  }

  #histogramOf(topic: string): Histogram {
    const existing = this.#topics.get(topic);
    if (existing !== undefined) return existing;
    const histogram = { counts: [], sumMs: 0 };
    this.#topics.set(topic, histogram);
    return histogram;
  }
}
