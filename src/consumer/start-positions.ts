import type { Log, PartitionEnds } from '../broker/log.ts';
import type { AddedPartition, PlaceInPartition } from './group-tables.ts';
import type { StartFrom } from './options.ts';
import { partitionName } from './sync-plan.ts';

/** What the log said of a topic. */
export interface TopicFacts {
  readonly topic: string;
  /** 0: the topic does not exist. */
  readonly partitions: number;
  /** Where a group that is new to the topic begins; absent where it was not asked for. */
  readonly starts: readonly PlaceInPartition[] | undefined;
  /** Of partitions that were added: where those before them ended then. */
  readonly opensAfter?: ReadonlyMap<number, readonly bigint[]>;
}

/**
 * The partitions that are to be added to what a group knows, and where it begins in them. A group that is new to a topic
 * begins where its `startFrom` says. If the topic does not exist yet, its partition 0 is added ahead of time: so the group
 * is not new to the topic any more when it appears, and reads all of it. The same holds for partitions that are added: the
 * group reads all of them, once it has come to where the others ended when they were added.
 */
export function missingPlaces(
  facts: readonly TopicFacts[],
  known: readonly { readonly topic: string; readonly partition: number }[],
): AddedPartition[] {
  const topics = new Set(known.map(({ topic }) => topic));
  const partitions = new Set(known.map(partitionName));
  return facts.flatMap(({ topic, partitions: count, starts, opensAfter }) => {
    const places =
      !topics.has(topic) && count > 0
        ? (starts ?? [])
        : Array.from({ length: Math.max(count, 1) }, (_, partition) => ({ topic, partition, nextOffset: 0n }));
    return places
      .filter((place) => !partitions.has(partitionName(place)))
      .map((place) => {
        const offsets = opensAfter?.get(place.partition);
        return offsets === undefined ? place : { ...place, opensAfter: offsets };
      });
  });
}

/** Asks the log about a topic. With `startFrom`, also where a group that is new to it begins. */
export async function askAbout(log: Log, topic: string, startFrom: StartFrom | undefined): Promise<TopicFacts> {
  const ends = await log.ends(topic);
  const opensAfter = new Map(ends.flatMap(({ partition, opensAfter: after }) => (after ? [[partition, after]] : [])));
  const isAsked = ends.length > 0 && startFrom !== undefined;
  const starts = isAsked ? await startsOf(log, topic, startFrom, ends) : undefined;
  return { topic, partitions: ends.length, starts, opensAfter };
}

async function startsOf(
  log: Log,
  topic: string,
  startFrom: StartFrom,
  ends: readonly PartitionEnds[],
): Promise<PlaceInPartition[]> {
  if (startFrom instanceof Date) {
    const places = await log.offsetsAt(topic, startFrom);
    return places.slice(0, ends.length).map(({ partition, offset }) => ({ topic, partition, nextOffset: offset }));
  }
  return ends.map(({ partition, start, end }) => ({
    topic,
    partition,
    nextOffset: startFrom === 'earliest' ? start : end,
  }));
}
