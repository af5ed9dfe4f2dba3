import type { Delivery } from './delivery.ts';
import type { ParkNote } from './park-note.ts';

/** What a consumer has done since it started, in records. */
export interface ConsumerCounters {
  /** Handled by a handler of this member, and committed. */
  handled: number;
  /** Skipped: handled before, by this member or another. */
  duplicates: number;
  /** Attempts that failed by the handler's fault and were followed by another. */
  retried: number;
  /** Attempts that failed or gave the record back, and are followed by another after a delay, the record being parked meanwhile. */
  delayed: number;
  /** Lined up behind a parked record of their key. */
  linedUp: number;
  /** Parked until the time that they were to be delivered at. */
  postponed: number;
  /** Set aside with their attempts used up, or expired. */
  dead: number;
  /** Given back by their handlers without a delay; those with one are among `delayed`. */
  released: number;
  /** Set aside because their type has no handler. */
  parked: number;
  /** Stepped over because their type has no handler, or their handler skips replays. */
  ignored: number;
  /** Begun when the time came that they were to be delivered at, and how much later than that in all, in milliseconds. */
  timersFired: number;
  timerLatenessMs: number;
}

/** Where counting begins. */
export function noCounts(): ConsumerCounters {
  return {
    handled: 0,
    duplicates: 0,
    retried: 0,
    delayed: 0,
    linedUp: 0,
    postponed: 0,
    dead: 0,
    released: 0,
    parked: 0,
    ignored: 0,
    timersFired: 0,
    timerLatenessMs: 0,
  };
}

/** Counts records that are done with: `fresh` of them now, the others before. */
export function countDone(counters: ConsumerCounters, items: readonly Delivery[], fresh: number): void {
  const [first] = items;
  if (first?.parked === undefined) counters.duplicates += items.length - fresh;
  const task = first?.task;
  if (task?.todo === 'handle') counters.handled += fresh;
  else if (task !== undefined) counters[counterOf(task.note)] += fresh;
}

/** What a record that was set aside counts as. */
function counterOf({ dead, reason }: ParkNote): 'dead' | 'parked' | 'linedUp' | 'postponed' | 'delayed' {
  if (dead) return 'dead';
  switch (reason) {
    case 'UNHANDLED_TYPE':
      return 'parked';
    case 'KEY_PARKED':
      return 'linedUp';
    case 'NOT_DUE':
      return 'postponed';
    default:
      return 'delayed';
  }
}
