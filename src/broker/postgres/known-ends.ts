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
 * Where partitions were seen to end. As long as nothing says that they have grown, fetches that may wait need not ask for what lies
 * behind: of many partitions, only those are asked for that have something new. Forgotten as often as fetches look by
 * themselves, since a notification may be lost.
 */
export class KnownEnds {
  readonly #wakeUps: WakeUps;
  readonly #ends = new Map<number, KnownEnd>();

  constructor(wakeUps: WakeUps) {
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

  /** To be called before a look; what it returns, after it, if there was nothing. What was told of meanwhile is still to be looked at. */
  look(places: readonly EndPlace[], cluster: Cluster | undefined): () => void {
    const untilMs = performance.now() + this.#wakeUps.pollDelayMs();
    const known = places.map(({ id, offset }) => ({ id, offset, news: this.#wakeUps.newsOf(id), cluster, untilMs }));
    return () => {
      for (const one of known) this.#ends.set(one.id, one);
    };
  }
}
