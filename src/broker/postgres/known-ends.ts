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

/** What is used of {@link WakeUps}. */
type Heard = Pick<WakeUps, 'isListening' | 'newsOf' | 'pollDelayMs'>;

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

  /** Whether a partition ends here, for all that is known. */
  isEnd({ id, offset }: EndPlace, cluster: Cluster | undefined): boolean {
    const known = this.#ends.get(id);
    return (
      known?.offset === offset &&
      known.cluster === cluster &&
      this.#wakeUps.isListening &&
      known.news === this.#wakeUps.newsOf(id) &&
      performance.now() < known.untilMs
    );
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
