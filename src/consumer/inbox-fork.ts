import { TailraceError } from '../base/errors.ts';
import type { Log, PartitionEnds } from '../broker/log.ts';
import type { StoredId } from './inbox-table.ts';

/** What is stored of a partition, as far as it is to be compared. */
export interface StoredIds {
  readonly topic: string;
  readonly partition: number;
  /** Where it ends. */
  readonly to: bigint;
  /** The last message below an offset. */
  last(below: bigint): Promise<StoredId | undefined>;
  /** Messages from an offset on, in order, at most `limit`. */
  from(offset: bigint, limit: number): Promise<readonly StoredId[]>;
}

/** Messages that are compared at a time. */
const CHUNK = 2_000;
const CHUNK_BYTES = 16_000_000;

/**
 * Where what is stored parts from the log: the first offset at which the log has another message, or its end. A log that has
 * lost its end gives offsets anew, to other messages. `undefined`: all that the log still has is what is stored. Two
 * histories have a common beginning and nothing after it, so mostly the last message tells.
 *
 * Throws what the log throws, and `TIMEOUT` while it does not give what it says it has.
 */
export async function forkOf(log: Log, stored: StoredIds): Promise<bigint | undefined> {
  const { topic, partition, to } = stored;
  const ends = (await log.ends(topic)).find((each) => each.partition === partition);
  if (ends === undefined || ends.start >= to) return undefined; // nothing is there that could be something else
  const last = await stored.last(to);
  if (last === undefined || last.offset < ends.start) return undefined;
  if (last.offset < ends.end && (await hasAt(log, stored, last))) return undefined;
  return firstOther(log, stored, ends);
}

async function hasAt(log: Log, { topic, partition }: StoredIds, { offset, messageId }: StoredId): Promise<boolean> {
  const [found] = await log.fetch([{ topic, partition, offset }], { maxRecords: 1 });
  return found?.offset === offset && isSame(found.messageId, messageId);
}

async function firstOther(log: Log, stored: StoredIds, ends: PartitionEnds): Promise<bigint | undefined> {
  const { topic, partition, to } = stored;
  const end = ends.end < to ? ends.end : to;
  for (let offset = ends.start; offset < end;) {
    const known = await stored.from(offset, CHUNK);
    const [first] = known;
    if (first === undefined || first.offset >= end) break;
    const records = await log.fetch([{ topic, partition, offset: first.offset }], {
      maxRecords: CHUNK,
      maxBytes: CHUNK_BYTES,
    });
    const lastRead = records.at(-1)?.offset;
    if (lastRead === undefined) throw notGiven(topic, partition, first.offset);
    const other = otherAmong(known, records);
    if (other !== undefined) return other;
    const lastKnown = known.at(-1)?.offset ?? lastRead;
    offset = (lastRead < lastKnown ? lastRead : lastKnown) + 1n;
  }
  return end < to ? end : undefined;
}

/** The first offset that has one message here and another there. What is missing in the log may have been compacted away. */
function otherAmong(known: readonly StoredId[], records: readonly StoredId[]): bigint | undefined {
  const ids = new Map(known.map(({ offset, messageId }) => [offset, messageId]));
  return records.find(({ offset, messageId }) => {
    const id = ids.get(offset);
    return id !== undefined && !isSame(id, messageId);
  })?.offset;
}

function isSame(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase();
}

function notGiven(topic: string, partition: number, offset: bigint): TailraceError {
  return new TailraceError(
    'TIMEOUT',
    `The log does not give the record at offset ${offset} of ${topic} partition ${partition}, which it says it has. What is stored cannot be compared with it yet; tried again.`,
    { retryable: true },
  );
}
