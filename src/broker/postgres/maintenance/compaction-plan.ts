import { hash } from 'node:crypto';

/** What compaction looks at in a record. */
export interface KeyedRecord {
  readonly offset: bigint;
  readonly key: string | null;
  /** A delete marker: its payload is null. */
  readonly isMarker: boolean;
}

/**
 * The last offset of each key in a stretch. Of a key it keeps a digest, so its memory is bounded by the number of keys: about
 * 150 bytes each.
 */
export class LastOffsets {
  readonly #offsets = new Map<string, bigint>();

  get size(): number {
    return this.#offsets.size;
  }

  /** Records come in ascending order of their offsets. */
  add({ key, offset }: KeyedRecord): void {
    if (key !== null) this.#offsets.set(digestOf(key), offset);
  }

  /** Whether the stretch has a later record of the key. */
  isAfter({ key, offset }: KeyedRecord): boolean {
    return key !== null && (this.#offsets.get(digestOf(key)) ?? -1n) > offset;
  }
}

function digestOf(key: string): string {
  return hash('sha256', key, 'base64');
}

/**
 * Whether a record stays: if it has no key, or is the last of its key, and no delete marker whose time is over.
 *
 * @param markersBelow offsets below which delete markers delete nothing any more, and nobody needs them.
 */
export function stays(record: KeyedRecord, last: LastOffsets, markersBelow: bigint): boolean {
  if (record.key === null) return true;
  return !last.isAfter(record) && !(record.isMarker && record.offset < markersBelow);
}

/** How far a partition has been compacted, as `log_compaction` and its entries show it. */
export interface CompactionState {
  /** The first offset that can be read. */
  readonly start: bigint;
  /** Offsets below this one may be compacted by now. */
  readonly limit: bigint;
  /** Below it, no key is there twice. */
  readonly cleanTo: bigint;
  /** How many records were left below `cleanTo`. */
  readonly kept: number;
  /** Whether delete markers below `cleanTo` can be removed by now. */
  readonly hasDueMarkers: boolean;
  /** Whether records behind `cleanTo` have waited for long. */
  readonly hasWaited: boolean;
}

/**
 * Whether a pass over the partition is due: if at least half of what can be compacted was never looked at, if that has waited
 * for long, or if delete markers are to leave. So each record is read a few times at most, however long the partition is.
 */
export function isPassDue({ start, limit, cleanTo, kept, hasDueMarkers, hasWaited }: CompactionState): boolean {
  const from = larger(start, cleanTo);
  const left = Math.min(kept, Number(larger(cleanTo - start, 0n)));
  return hasDueMarkers || (limit > from && (hasWaited || Number(limit - from) >= left));
}

function larger(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

/** Offsets that follow each other, from `base` on, and how many of the records that stay are there. */
export interface PackedStretch {
  readonly base: bigint;
  readonly count: bigint;
  readonly records: number;
}

/**
 * Gives each group of records the offsets from its first record to the next group's, so that they cover the whole span; one
 * without records has all of it.
 *
 * @param counts how many records each group has, as `stretches` cuts them.
 */
export function coverSpan(
  { base, end }: { readonly base: bigint; readonly end: bigint },
  offsets: readonly bigint[],
  counts: readonly number[],
): PackedStretch[] {
  if (counts.length === 0) return [{ base, count: end - base, records: 0 }];
  let at = 0;
  const bases = counts.map((count, n) => {
    const first = n === 0 ? base : (offsets[at] ?? end);
    at += count;
    return first;
  });
  return counts.map((records, n) => {
    const first = bases[n] ?? end;
    return { base: first, count: (bases[n + 1] ?? end) - first, records };
  });
}

/**
 * Whether a stretch of entries is written anew: if records of it leave, or if all of it is packed already, in at least twice
 * as many entries as it needs.
 */
export function isWorthRewriting(
  entries: readonly { readonly isPacked: boolean }[],
  removed: number,
  needed: number,
): boolean {
  return removed > 0 || (entries.length >= 2 * Math.max(needed, 1) && entries.every(({ isPacked }) => isPacked));
}
