import { formatLsn, lsn, parseLsn, type Lsn } from '../base/lsn.ts';
import { emptySnapshot, Snapshot } from '../postgres/snapshot.ts';
import { PositionSet } from './positions.ts';
import type { Resume } from './source.ts';

/**
 * From where the outbox can be swept, stored now and then: everything that `snapshot` sees is in the log, and so are the
 * messages at the outbox positions `beyond`, which it does not see.
 */
export interface Checkpoint {
  readonly snapshot: Snapshot;
  readonly beyond: readonly number[];
}

/**
 * What the log holds. Source and log are in one database and positions name rows there, so this tells of any message
 * whether it is in the log: no dedupe window, and no comparing of places in the WAL.
 */
export interface Place {
  /** Every commit that ends at or below it is in the log: as far as a slot may be acknowledged. 0 where no slot was read. */
  readonly end: Lsn;
  /** All that it sees is in the log. */
  readonly snapshot: Snapshot;
  /** What is in the log beyond the snapshot. */
  readonly inLog: PositionSet;
}

export function encodeProgress(end: Lsn): string {
  return formatLsn(end);
}

export function encodeCheckpoint({ snapshot, beyond }: Checkpoint): string {
  return `${snapshot.toString()} ${beyond.join(',')}`;
}

/** @returns the start of everything where nothing was stored. */
function decodeCheckpoint(text: string | undefined): Checkpoint {
  if (text === undefined) return { snapshot: emptySnapshot(), beyond: [] };
  const [snapshot = '', beyond = ''] = text.split(' ');
  return { snapshot: Snapshot.parse(snapshot), beyond: beyond === '' ? [] : beyond.split(',').map(Number) };
}

/** Puts together what the last relay stored and what it appended after that. */
export async function resumePlace(resume: Resume): Promise<Place> {
  const { snapshot, beyond } = decodeCheckpoint(resume.checkpoint);
  return {
    end: resume.progress === undefined ? lsn(0n) : parseLsn(resume.progress),
    snapshot,
    inLog: PositionSet.of(await resume.appendedSinceCheckpoint(), beyond),
  };
}
