import type { Append, DeadLetters } from '../broker/log.ts';
import { partitionAmong } from '../broker/partitioner.ts';

/** Where messages go. */
export interface Routes {
  /** In the order of the messages within each partition. */
  readonly appends: readonly Append[];
  /** The outbox positions of messages whose topic has no partitions, in their order, by topic. */
  readonly unroutable: ReadonlyMap<string, readonly number[]>;
}

/** Assigns messages to the partitions of their topics. */
export class Router {
  /** Counts batches, so that messages without a key stay together in one and go elsewhere with the next. */
  #turn = 0;

  /**
   * The appends of a batch, in its order within each partition. A key's messages go to one partition, the one that Java
   * Kafka's default partitioner would choose, as far as the topic was not given more partitions.
   *
   * @param partitionCounts the numbers of partitions that a topic has had, the last one now; empty where there can be none.
   */
  route(batch: DeadLetters, partitionCounts: (topic: string) => readonly number[]): Routes {
    const turn = this.#turn++;
    const topics = new Map<string, number[][]>();
    const appends: Append[] = [];
    const unroutable = new Map<string, number[]>();
    let topic = '';
    let lists: number[][] = [];
    batch.ids.forEach((id, n) => {
      const name = batch.topics[n] ?? '';
      if (name !== topic || n === 0) {
        topic = name;
        lists = topics.get(name) ?? [];
        topics.set(name, lists);
      }
      const counts = partitionCounts(name);
      const count = counts.at(-1) ?? 0;
      if (count === 0) {
        const ids = unroutable.get(name);
        if (ids === undefined) unroutable.set(name, [id]);
        else ids.push(id);
        return;
      }
      const hash = batch.keyHashes[n] ?? -1;
      const partition = hash < 0 ? turn % count : partitionAmong(hash, counts);
      const list = lists[partition];
      if (list === undefined) {
        const ids = [id];
        lists[partition] = ids;
        appends.push({ topic: name, partition, ids });
      } else list.push(id);
    });
    return { appends, unroutable };
  }
}
