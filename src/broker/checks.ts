import { TailraceError } from '../base/errors.ts';
import { LONGEST_TIMER_MS } from '../base/signal.ts';
import type { FetchOptions, FetchPosition, RecordsToAppend } from './log.ts';

const TOPIC = /^[A-Za-z0-9._-]{1,200}$/;
const MOST_PARTITIONS = 10_000;
const MOST_RECORDS = 1_000_000;

/** The error for an option or argument that cannot be used. */
export function invalid(name: string, found: string, expected: string): TailraceError {
  return new TailraceError('INVALID_OPTION', `The option ${name} is ${found}; expected ${expected}.`);
}

/** @throws TailraceError `INVALID_TOPIC`: not 1 to 200 letters, digits, dots, underscores and hyphens. */
export function assertTopicName(topic: string): void {
  if (TOPIC.test(topic)) return;
  throw new TailraceError(
    'INVALID_TOPIC',
    `Not a name for a topic: ${JSON.stringify(topic.slice(0, 200))}. Expected 1 to 200 letters, digits, dots, underscores and hyphens.`,
  );
}

/** @throws TailraceError `INVALID_OPTION`: not a whole number from 1 to 10,000. */
export function assertPartitions(partitions: number): number {
  if (Number.isInteger(partitions) && partitions >= 1 && partitions <= MOST_PARTITIONS) return partitions;
  throw invalid('partitions', String(partitions), 'a whole number from 1 to 10,000');
}

/** @throws TailraceError `INVALID_OPTION`: an invalid Date. */
export function assertTime(time: Date): void {
  if (Number.isNaN(time.getTime())) throw invalid('time', 'an invalid Date', 'a valid one');
}

/** The bounds of a fetch, checked and complete. */
export type FetchBounds = Required<Omit<FetchOptions, 'signal'>>;

/** @throws TailraceError `INVALID_OPTION`. */
export function fetchBounds(options: FetchOptions): FetchBounds {
  const { maxRecords = 2_000, maxRecordsEach = maxRecords, maxBytes = 1_000_000, maxWaitMs = 0 } = options;
  assertAtLeast('maxRecords', maxRecords, 1);
  assertAtLeast('maxRecordsEach', maxRecordsEach, 1);
  assertAtLeast('maxBytes', maxBytes, 1);
  assertAtLeast('maxWaitMs', maxWaitMs, 0);
  return {
    maxRecords: Math.min(Math.floor(maxRecords), MOST_RECORDS),
    maxRecordsEach: Math.min(Math.floor(maxRecordsEach), MOST_RECORDS),
    maxBytes: Math.floor(Math.min(maxBytes, Number.MAX_SAFE_INTEGER)),
    maxWaitMs: Math.min(maxWaitMs, LONGEST_TIMER_MS),
  };
}

function assertAtLeast(name: string, value: number, least: number): void {
  if (!(value >= least)) throw invalid(name, String(value), `a number, at least ${least}`);
}

/** Lets another position be first each time, so that with room for a few records none of them is passed over for ever. */
export function rotated<Item>(items: readonly Item[], random: number): Item[] {
  const first = Math.floor(random * items.length);
  return [...items.slice(first), ...items.slice(0, first)];
}

/** The error for a position that has no record, and of which none will come. */
export function outOfRange({ topic, partition, offset }: FetchPosition, why: string, next: string): TailraceError {
  return new TailraceError(
    'OFFSET_OUT_OF_RANGE',
    `There is no offset ${offset} in ${topic} partition ${partition}: ${why}. ${next}`,
    { details: { topic, partition, offset } },
  );
}

/** The error for a position below 0. */
export function belowZero(position: FetchPosition): TailraceError {
  return outOfRange(position, 'offsets count from 0', 'Correct the position.');
}

/** The error for a position beyond the end of its partition. */
export function beyondEnd(position: FetchPosition, end: bigint): TailraceError {
  return outOfRange(
    position,
    `its next record will get the offset ${end}`,
    'If the log was restored from a backup, its readers are ahead of it: move them back.',
  );
}

/** The error for a position whose record was removed; the next one that is left is at `start`. */
export function removed(position: FetchPosition, start: bigint): TailraceError {
  return outOfRange(
    position,
    `the log goes on at ${start}`,
    'What lies before was removed: move the reader to the first offset that is left, knowing what it misses.',
  );
}

/** The error for an append to a `TargetLog` that finds something else than it was made for. */
export function appendConflict(
  { topic, partition, offset }: Pick<RecordsToAppend, keyof FetchPosition>,
  end: bigint,
): TailraceError {
  const found = offset > end ? `the partition ends at ${end}` : 'other records are there';
  const next =
    offset > end
      ? 'Its tail was lost, or records were left out: go on from its end.'
      : 'Something else writes to it too: each partition has one writer.';
  return new TailraceError(
    'APPEND_CONFLICT',
    `Records were to be appended to ${topic} partition ${partition} at offset ${offset}, and ${found}. ${next}`,
    { details: { topic, partition, offset, end } },
  );
}
