import { keyHash, partitionAmong } from '../broker/partitioner.ts';
import type { CursorRow } from './sync-plan.ts';

/** A key of which a record is parked so that later ones line up behind it. */
export interface BlockedKey {
  readonly topic: string;
  readonly partition: number;
  readonly key: string;
}

/** Of the partitions to be taken, those that were added to their topic: only they need a look at what is parked. */
export function addedAmong(take: readonly CursorRow[]): CursorRow[] {
  return take.filter(({ opensAfter }) => opensAfter !== null);
}

/**
 * Of partitions that were added to their topics, those to which a key has moved that is blocked in its former partition: what
 * it has here comes after what is parked there.
 *
 * @param rows every partition of these topics that the group knows.
 */
export function heldUp(
  added: readonly CursorRow[],
  rows: readonly CursorRow[],
  blocked: readonly BlockedKey[],
): CursorRow[] {
  return added.filter(({ topic, partition }) => {
    const ofTopic = rows.filter((row) => row.topic === topic);
    const former = ofTopic.flatMap(({ opensAfter }) => opensAfter?.length ?? []);
    const counts = [...new Set([...former, ofTopic.length])].sort((a, b) => a - b);
    return blocked.some(
      (each) =>
        each.topic === topic && each.partition !== partition && partitionAmong(keyHash(each.key), counts) === partition,
    );
  });
}
