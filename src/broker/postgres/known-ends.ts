import type { Cluster } from '../../base/cluster.ts';
import type { WakeUps } from './wake-ups.ts';

/** A partition, by its number, and an offset in it. */
export interface EndPlace {
  readonly id: number;
  readonly offset: bigint;
}

interface KnownEnd extends EndPlace {
  readonly news: number;
  readonly cluster: Cluster | undefined;
  readonly untilMs: number;
}

/**
 * What is known of a partition from an offset on, where it was seen to end. `ended`: there is nothing. `told`: it has grown
 * since, as was said. `due`: nothing was said, and it is time to look. `unknown`: it was not seen to end there, or so long ago
 * that much may have happened.
 */
export type Standing = 'ended' | 'told' | 'due' | 'unknown';

/** What is used of {@link WakeUps}. */
type Heard = Pick<WakeUps, 'isListening' | 'newsOf' | 'pollDelayMs'>;

/** Where others are told of all the time, one of which nothing is said is looked at this often at the least. */
const LONGEST_DUE_MS = 1_000;

/**
 * Where partitions were seen to end. As long as nothing says that they have grown, fetches that may wait need not ask for what lies
 * behind: of many partitions, only those are asked for that have something new. Forgotten as often as fetches look by
 * themselves, since a notification may be lost.
 */
export class KnownEnds {
  readonly #wakeUps: Heard;
  readonly #ends = new Map<number, KnownEnd>();

  constructor(wakeUps: Heard) {
    this.#wakeUps = wakeUps;
  }

  /** What is known of a partition from here on. */
  standing({ id, offset }: EndPlace, cluster: Cluster | undefined): Standing {
    const known = this.#ends.get(id);
    if (known?.offset !== offset || known.cluster !== cluster || !this.#wakeUps.isListening) return 'unknown';
    if (known.news !== this.#wakeUps.newsOf(id)) return 'told';
    const dueMs = performance.now() - known.untilMs;
    if (dueMs < 0) return 'ended';
    return dueMs < LONGEST_DUE_MS ? 'due' : 'unknown';
  }

  /**
   * To be called before a look at partitions; what it returns, after it, with where it found that they end. What was told of meanwhile is
   * still to be looked at.
   */
  look(ids: readonly number[], cluster: Cluster | undefined): (ends: Iterable<EndPlace>) => void {
    const untilMs = performance.now() + this.#wakeUps.pollDelayMs();
    const news = new Map(ids.map((id) => [id, this.#wakeUps.newsOf(id)]));
    return (ends) => {
      for (const { id, offset } of ends) {
        this.#ends.set(id, { id, offset, news: news.get(id) ?? -1, cluster, untilMs });
      }
    };
  }
}
