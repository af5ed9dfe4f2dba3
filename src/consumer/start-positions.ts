import type { Log } from '../broker/log.ts';
import type { PlaceInPartition } from './group-tables.ts';
import type { StartFrom } from './options.ts';
import { partitionName } from './sync-plan.ts';

/** What the log said of a topic. */
export interface TopicFacts {
  readonly topic: string;
  /** 0: the topic does not exist. */
  readonly partitions: number;
  /** Where a group that is new to the topic begins; absent where it was not asked for. */
  readonly starts: readonly PlaceInPartition[] | undefined;
}

/**
 * The partitions that are to be added to what a group knows, and where it begins in them. A group that is new to a topic
 * begins where its `startFrom` says. If the topic does not exist yet, its partition 0 is added ahead of time: so the group
 * is not new to the topic any more when it appears, and reads all of it. The same holds for partitions that are added.
 */
export function missingPlaces(
  facts: readonly TopicFacts[],
  known: readonly { readonly topic: string; readonly partition: number }[],
): PlaceInPartition[] {
  const topics = new Set(known.map(({ topic }) => topic));
  const partitions = new Set(known.map(partitionName));
  return facts.flatMap(({ topic, partitions: count, starts }) => {
    if (!topics.has(topic) && count > 0) return starts ?? [];
    return Array.from({ length: Math.max(count, 1) }, (_, partition) => ({ topic, partition, nextOffset: 0n })).filter(
      (place) => !partitions.has(partitionName(place)),
    );
  });
}

/** Asks the log about a topic. With `startFrom`, also where a group that is new to it begins. */
export async function askAbout(log: Log, topic: string, startFrom: StartFrom | undefined): Promise<TopicFacts> {
  const partitions = await log.partitionCount(topic);
  const isAsked = partitions > 0 && startFrom !== undefined;
  return { topic, partitions, starts: isAsked ? await startsOf(log, topic, startFrom) : undefined };
}

async function startsOf(log: Log, topic: string, startFrom: StartFrom): Promise<PlaceInPartition[]> {
  if (startFrom instanceof Date) {
    const places = await log.offsetsAt(topic, startFrom);
    return places.map(({ partition, offset }) => ({ topic, partition, nextOffset: offset }));
  }
  const ends = await log.ends(topic);
  return ends.map(({ partition, start, end }) => ({
    topic,
    partition,
    nextOffset: startFrom === 'earliest' ? start : end,
  }));
}
