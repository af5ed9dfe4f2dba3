import { messageOf } from '../base/errors.ts';
import type { Cluster } from '../base/cluster.ts';
import type { ConsumerSettings } from './options.ts';
import { askAbout, type TopicFacts } from './start-positions.ts';

/** How often a topic that exists is looked at for added partitions. */
const RECHECK_MS = 10_000;

/** Keeps what the log says of a group's topics. Topics that do not exist yet are looked at whenever `refresh` is called. */
export class TopicWatch {
  readonly #settings: Pick<ConsumerSettings, 'log' | 'startFrom' | 'logger' | 'group'>;
  readonly #facts = new Map<string, TopicFacts>();
  readonly #askedAt = new Map<string, number>();
  readonly #topics: readonly string[];
  #settled: ReadonlySet<string> = new Set();
  #asking: Promise<void> | undefined;
  /** Where the facts were found. */
  #cluster: Cluster | undefined;

  constructor(settings: Pick<ConsumerSettings, 'log' | 'startFrom' | 'logger' | 'group'>, topics: readonly string[]) {
    this.#settings = settings;
    this.#topics = topics;
  }

  get facts(): TopicFacts[] {
    return [...this.#facts.values()];
  }

  /** Whether the facts are of this cluster. */
  isOf(cluster: Cluster | undefined): boolean {
    return this.#cluster === cluster;
  }

  /** Whether a topic was there when the log was last asked. */
  exists(topic: string): boolean {
    return (this.#facts.get(topic)?.partitions ?? 0) > 0;
  }

  /** The topics in which the group has its places: where it would begin need not be asked there. */
  settle(topics: ReadonlySet<string>): void {
    this.#settled = topics;
  }

  /** Asks the log, unless that is under way. Calls back if something changed. Never throws: what fails is asked again. */
  refresh(onChange: () => void): void {
    if (this.#asking !== undefined) return;
    this.#asking = this.ask(false)
      .then((changed) => {
        if (changed) onChange();
      })
      .catch((error: unknown) => {
        const { group, logger } = this.#settings;
        logger.warn({ group, error: messageOf(error) }, 'The log does not answer about topics; asking again');
      })
      .finally(() => {
        this.#asking = undefined;
      });
  }

  /** Asks about every topic that is due, or about all. Returns whether the answers changed. Throws what the log throws. */
  async ask(all: boolean): Promise<boolean> {
    const { log } = this.#settings;
    for (let changed = false; ;) {
      const { cluster } = log;
      if (cluster !== this.#cluster) this.#forget(cluster);
      changed = (await this.#askNow(all)) || changed;
      if (cluster === log.cluster) return changed;
    }
  }

  /** Asks about every topic, where the log leads to now. Throws what the log throws. */
  async askAnew(): Promise<void> {
    await this.#asking;
    await this.ask(true);
  }

  #forget(cluster: Cluster | undefined): void {
    this.#cluster = cluster;
    this.#facts.clear();
    this.#askedAt.clear();
    this.#settled = new Set();
  }

  async #askNow(all: boolean): Promise<boolean> {
    let changed = false;
    for (const topic of this.#topics) {
      if (!all && !this.#isDue(topic)) continue;
      const former = this.#facts.get(topic)?.partitions;
      const startFrom = this.#settled.has(topic) ? undefined : this.#settings.startFrom;
      const facts = await askAbout(this.#settings.log, topic, startFrom);
      this.#facts.set(topic, facts);
      this.#askedAt.set(topic, performance.now());
      changed ||= facts.partitions !== former;
    }
    return changed;
  }

  #isDue(topic: string): boolean {
    const startIsUnknown = !this.#settled.has(topic) && this.#facts.get(topic)?.starts === undefined;
    return startIsUnknown || !this.exists(topic) || performance.now() - (this.#askedAt.get(topic) ?? 0) >= RECHECK_MS;
  }
}
