import type { Append } from '../broker/log.ts';
import { partitionOf } from '../broker/partitioner.ts';
import type { SourceBatch } from '../source/source.ts';

/** Assigns messages to the partitions of their topics. */
export class Router {
  /** Counts batches, so that messages without a key stay together in one and go elsewhere with the next. */
  #turn = 0;

  /**
   * The appends of a batch, in its order within each partition. A key's messages go to one partition, the one that Java
   * Kafka's default partitioner would choose.
   */
  route(batch: SourceBatch, partitionCount: (topic: string) => number): Append[] {
    const turn = this.#turn++;
    const topics = new Map<string, number[][]>();
    const appends: Append[] = [];
    let topic = '';
    let lists: number[][] = [];
    batch.ids.forEach((id, n) => {
      const name = batch.topics[n] ?? '';
      if (name !== topic || n === 0) {
        topic = name;
        lists = topics.get(name) ?? [];
        topics.set(name, lists);
      }
      const count = partitionCount(name);
      const hash = batch.keyHashes[n] ?? -1;
      const partition = hash < 0 ? turn % count : partitionOf(hash, count);
      const list = lists[partition];
      if (list === undefined) {
        const ids = [id];
        lists[partition] = ids;
        appends.push({ topic: name, partition, ids });
      } else list.push(id);
    });
    return appends;
  }
}
