/** What is known of something that was tried: it happened, it did not, or nobody knows. */
export type Outcome = 'ok' | 'fail' | 'info';

/** A value at an offset, as somebody read it. Values are compared as they are: message ids, say. */
export interface ReadValue {
  /** Names a partition, such as `orders/0`. */
  readonly partition: string;
  readonly offset: bigint;
  readonly value: string;
}

/** Values were appended to a partition, in this order. No two appends have a value in common, unless one resends the other. */
export interface AppendEvent {
  readonly op: 'append';
  readonly process: string;
  readonly partition: string;
  readonly values: readonly string[];
  readonly outcome: Outcome;
  /** Where the first of them is, if the log has said so. */
  readonly offset?: bigint;
}

/** A reader was given records, in this order. Its next poll goes on behind them. */
export interface PollEvent {
  readonly op: 'poll';
  readonly process: string;
  readonly records: readonly ReadValue[];
}

/** A reader decides where its next poll of a partition begins. */
export interface SeekEvent {
  readonly op: 'seek';
  readonly process: string;
  readonly partition: string;
  readonly offset: bigint;
}

/** A group has stored that everything below an offset is done. */
export interface CommitEvent {
  readonly op: 'commit';
  readonly process: string;
  readonly group: string;
  readonly partition: string;
  readonly offset: bigint;
  readonly outcome: Outcome;
}

/** A member takes up a partition where its group is said to have left it. Its next poll begins there. */
export interface AssignEvent {
  readonly op: 'assign';
  readonly process: string;
  readonly group: string;
  readonly partition: string;
  readonly offset: bigint;
}

/** All that a partition holds once everything is over. */
export interface FinalReadEvent {
  readonly op: 'final-read';
  readonly partition: string;
  readonly records: readonly ReadValue[];
}

/**
 * One thing that happened, noted when its outcome was known. A history is a list of them in that order; those of one process
 * come one after another.
 */
export type HistoryEvent = AppendEvent | PollEvent | SeekEvent | CommitEvent | AssignEvent | FinalReadEvent;
