import type { AppendEvent, AssignEvent, CommitEvent, FinalReadEvent, HistoryEvent, ReadValue } from './history.ts';

/**
 * What can be wrong with a history. The names are those of Jepsen's tests of Kafka; `invented` is added.
 *
 * - `lost-write`: an append succeeded, and what stands in the log leaves it out.
 * - `aborted-read`: somebody read what an append had failed to write.
 * - `invented`: somebody read what nobody has tried to write.
 * - `inconsistent-offset`: an offset has two values.
 * - `duplicate`: a value is at two offsets.
 * - `skip`: a reader passed over a record, or a group went on beyond its place.
 * - `nonmonotonic-poll`: a reader was given records out of order or again, or a group went back behind its place.
 *
 * @see https://github.com/jepsen-io/kafka
 */
export type AnomalyKind =
  'lost-write' | 'aborted-read' | 'invented' | 'inconsistent-offset' | 'duplicate' | 'skip' | 'nonmonotonic-poll';

/** Something that is wrong, with the few events that show it. */
export interface Anomaly {
  readonly kind: AnomalyKind;
  readonly partition: string;
  /** In words. */
  readonly what: string;
  /** Places in the history. */
  readonly events: readonly number[];
}

/** What a history says. The counts tell how much it can prove: one in which nothing was read is without fault. */
export interface HistoryVerdict {
  readonly ok: boolean;
  /** At most ten of each kind. */
  readonly anomalies: readonly Anomaly[];
  /** Values of appends that succeeded. */
  readonly appended: number;
  /** Records given to readers. */
  readonly polled: number;
}

const MOST_OF_A_KIND = 10;

/**
 * Looks for everything that can be wrong with a history. Pure: what it says depends on the events alone.
 *
 * A write counts as lost if the final read of its partition leaves it out. Without a final read, its offset has to be known
 * and somebody has to have read beyond it: then readers have to have read everything up to there, together.
 */
export function checkHistory(history: readonly HistoryEvent[]): HistoryVerdict {
  const events = history.map((event, at) => ({ event, at }));
  const writes = new Writes(events.filter((one): one is At<AppendEvent> => one.event.op === 'append'));
  const contents = new Contents();
  for (const one of events) contents.add(one);
  const found = [
    ...contents.conflicts(),
    ...contents.duplicates(),
    ...writes.unwritten(contents),
    ...writes.lost(contents),
    ...readerAnomalies(events, contents),
  ];
  const anomalies = KINDS.flatMap((kind) => found.filter((anomaly) => anomaly.kind === kind).slice(0, MOST_OF_A_KIND));
  return {
    ok: anomalies.length === 0,
    anomalies,
    appended: writes.succeeded,
    polled: history.reduce((sum, event) => sum + (event.op === 'poll' ? event.records.length : 0), 0),
  };
}

const KINDS: readonly AnomalyKind[] = [
  'lost-write',
  'aborted-read',
  'invented',
  'inconsistent-offset',
  'duplicate',
  'skip',
  'nonmonotonic-poll',
];

/** An event and its place in the history. */
interface At<Event extends HistoryEvent = HistoryEvent> {
  readonly event: Event;
  readonly at: number;
}

/** A value that stands at an offset, according to an event. */
interface Sighting extends ReadValue {
  readonly at: number;
  /** Whether a reader or the final read saw it, rather than the writer being told. */
  readonly isRead: boolean;
}

/** What the partitions hold, as far as anybody has seen. */
class Contents {
  readonly #byOffset = new Map<string, Map<bigint, Sighting>>();
  readonly #byValue = new Map<string, Sighting>();
  readonly #read = new Map<string, Sighting>();
  readonly #highestRead = new Map<string, bigint>();
  readonly #final = new Map<string, number>();
  readonly #conflicts: Anomaly[] = [];
  readonly #duplicates = new Map<string, Anomaly>();

  add({ event, at }: At): void {
    if (event.op === 'final-read') this.#final.set(event.partition, at);
    for (const sighting of sightingsOf(event, at)) this.#see(sighting);
  }

  conflicts(): readonly Anomaly[] {
    return this.#conflicts;
  }

  duplicates(): readonly Anomaly[] {
    return [...this.#duplicates.values()];
  }

  /** Every value that was read, with the first event that read it. */
  get read(): Iterable<Sighting> {
    return this.#read.values();
  }

  isRead(value: string): boolean {
    return this.#read.has(value);
  }

  /** The first record from `from` on and before `to` that somebody knows of. */
  firstBetween(partition: string, from: bigint, to: bigint): Sighting | undefined {
    let first: Sighting | undefined;
    for (const sighting of this.#byOffset.get(partition)?.values() ?? []) {
      const { offset } = sighting;
      if (offset >= from && offset < to && (first === undefined || offset < first.offset)) first = sighting;
    }
    return first;
  }

  /** The final read of a partition, or the highest offset that anybody read of it. */
  extent(partition: string): { readonly final: number } | { readonly highest: bigint } | undefined {
    const final = this.#final.get(partition);
    if (final !== undefined) return { final };
    const highest = this.#highestRead.get(partition);
    return highest === undefined ? undefined : { highest };
  }

  #see(sighting: Sighting): void {
    const { partition, offset, value } = sighting;
    const offsets = this.#byOffset.get(partition) ?? new Map<bigint, Sighting>();
    this.#byOffset.set(partition, offsets);
    const there = offsets.get(offset);
    if (there === undefined) offsets.set(offset, sighting);
    else if (there.value !== value) this.#conflicts.push(conflict(there, sighting));
    const known = this.#byValue.get(value);
    if (known === undefined) this.#byValue.set(value, sighting);
    else if (known.offset !== offset || known.partition !== partition) this.#noteDuplicate(known, sighting);
    if (sighting.isRead) this.#noteRead(sighting);
  }

  #noteRead(sighting: Sighting): void {
    const { partition, offset, value } = sighting;
    if (!this.#read.has(value)) this.#read.set(value, sighting);
    const highest = this.#highestRead.get(partition);
    if (highest === undefined || offset > highest) this.#highestRead.set(partition, offset);
  }

  #noteDuplicate(known: Sighting, sighting: Sighting): void {
    if (this.#duplicates.has(sighting.value)) return;
    this.#duplicates.set(sighting.value, {
      kind: 'duplicate',
      partition: sighting.partition,
      what: `${sighting.value} is at ${placeOf(known)} and at ${placeOf(sighting)}`,
      events: eventsOf(known.at, sighting.at),
    });
  }
}

function sightingsOf(event: HistoryEvent, at: number): Sighting[] {
  switch (event.op) {
    case 'append': {
      const { offset, partition } = event;
      if (event.outcome !== 'ok' || offset === undefined) return [];
      return event.values.map((value, n) => ({ partition, offset: offset + BigInt(n), value, at, isRead: false }));
    }
    case 'poll':
    case 'final-read':
      return event.records.map((record) => ({ ...record, at, isRead: true }));
    case 'seek':
    case 'commit':
    case 'assign':
      return [];
  }
}

function conflict(there: Sighting, sighting: Sighting): Anomaly {
  return {
    kind: 'inconsistent-offset',
    partition: sighting.partition,
    what: `${placeOf(sighting)} holds ${there.value} and ${sighting.value}`,
    events: eventsOf(there.at, sighting.at),
  };
}

/** What writers know of their values. */
class Writes {
  readonly #appends: readonly At<AppendEvent>[];
  readonly #tried = new Set<string>();
  readonly #failed = new Map<string, number>();

  constructor(appends: readonly At<AppendEvent>[]) {
    this.#appends = appends;
    for (const { event } of appends) {
      if (event.outcome !== 'fail') for (const value of event.values) this.#tried.add(value);
    }
    for (const { event, at } of appends) {
      if (event.outcome !== 'fail') continue;
      for (const value of event.values) if (!this.#tried.has(value)) this.#failed.set(value, at);
    }
  }

  /** How many values are known to be written. */
  get succeeded(): number {
    return new Set(this.#ok().flatMap(({ event }) => event.values)).size;
  }

  /** Values that were read though they were not written. */
  unwritten(contents: Contents): Anomaly[] {
    return [...contents.read].flatMap((sighting): Anomaly[] => {
      const { value, partition, at } = sighting;
      if (this.#tried.has(value)) return [];
      const failedAt = this.#failed.get(value);
      if (failedAt === undefined) {
        return [
          { kind: 'invented', partition, what: `nobody appended ${value}, at ${placeOf(sighting)}`, events: [at] },
        ];
      }
      const what = `the append of ${value} failed, and it is at ${placeOf(sighting)}`;
      return [{ kind: 'aborted-read', partition, what, events: eventsOf(failedAt, at) }];
    });
  }

  /** Values that were written, and that nobody read where everything was read. */
  lost(contents: Contents): Anomaly[] {
    return this.#ok().flatMap(({ event, at }) =>
      event.values.flatMap((value, n): Anomaly[] => {
        const offset = event.offset === undefined ? undefined : event.offset + BigInt(n);
        if (contents.isRead(value)) return [];
        const proof = proofOfLoss(contents.extent(event.partition), offset);
        if (proof === undefined) return [];
        const what = `the append of ${value} to ${event.partition} succeeded, and ${proof.what}`;
        return [{ kind: 'lost-write', partition: event.partition, what, events: [at, ...proof.events] }];
      }),
    );
  }

  #ok(): readonly At<AppendEvent>[] {
    return this.#appends.filter(({ event }) => event.outcome === 'ok');
  }
}

/** Where all was read at the end, that settles it. Else something behind it has to be read: what lies ahead may still be. */
function proofOfLoss(
  extent: ReturnType<Contents['extent']>,
  offset: bigint | undefined,
): { readonly what: string; readonly events: readonly number[] } | undefined {
  if (extent === undefined) return undefined;
  if ('final' in extent) return { what: 'it is not there at the end', events: [extent.final] };
  if (offset === undefined || offset >= extent.highest) return undefined;
  return { what: `nobody read it at ${offset}, but up to ${extent.highest}`, events: [] };
}

/** Follows each reader through each partition. */
function readerAnomalies(events: readonly At[], contents: Contents): Anomaly[] {
  const readers = new Map<string, Reader>();
  const places = new GroupPlaces();
  const readerOf = (process: string, partition: string): Reader => {
    const name = JSON.stringify([process, partition]);
    const reader = readers.get(name) ?? new Reader(process, partition, contents);
    readers.set(name, reader);
    return reader;
  };
  return events.flatMap(({ event, at }): Anomaly[] => {
    switch (event.op) {
      case 'poll':
        return event.records.flatMap((record) => readerOf(event.process, record.partition).read(record, at));
      case 'seek':
        readerOf(event.process, event.partition).moveTo(event.offset, at);
        return [];
      case 'assign':
        readerOf(event.process, event.partition).moveTo(event.offset, at);
        return places.resume(event, at);
      case 'commit':
        places.commit(event, at);
        return [];
      case 'append':
        return [];
      case 'final-read':
        return holes(event, at, contents);
    }
  });
}

/** A reader in a partition: it has to be given each offset after the one before. */
class Reader {
  readonly #process: string;
  readonly #partition: string;
  readonly #contents: Contents;
  #next: { readonly offset: bigint; readonly at: number } | undefined;

  constructor(process: string, partition: string, contents: Contents) {
    this.#process = process;
    this.#partition = partition;
    this.#contents = contents;
  }

  moveTo(offset: bigint, at: number): void {
    this.#next = { offset, at };
  }

  read({ offset }: ReadValue, at: number): Anomaly[] {
    const expected = this.#next;
    this.#next = { offset: offset + 1n, at };
    if (expected === undefined || offset === expected.offset) return [];
    const where = `${this.#process} was to go on at ${this.#partition}/${expected.offset} and was given ${offset}`;
    const events = eventsOf(expected.at, at);
    if (offset < expected.offset) {
      return [{ kind: 'nonmonotonic-poll', partition: this.#partition, what: where, events }];
    }
    const passed = this.#contents.firstBetween(this.#partition, expected.offset, offset);
    if (passed === undefined) return []; // compaction may have removed what nobody has seen
    const what = `${where}, passing over ${passed.value} at ${passed.offset}`;
    return [{ kind: 'skip', partition: this.#partition, what, events: eventsOf(expected.at, at, passed.at) }];
  }
}

/** The final read is a reader too: from its first record on. */
function holes({ partition, records }: FinalReadEvent, at: number, contents: Contents): Anomaly[] {
  const reader = new Reader('the final read', partition, contents);
  return records.flatMap((record) => reader.read(record, at));
}

/** How far groups have stored that they are. */
class GroupPlaces {
  readonly #places = new Map<string, GroupPlace>();

  commit(event: CommitEvent, at: number): void {
    if (event.outcome === 'fail') return;
    const place = this.#of(event);
    const { offset } = event;
    if (offset > place.mostOffset) [place.mostOffset, place.mostAt] = [offset, at];
    if (event.outcome === 'ok' && offset > place.leastOffset) [place.leastOffset, place.leastAt] = [offset, at];
  }

  /** A group goes on at its last commit: not before one that succeeded, not beyond one that may have. */
  resume(event: AssignEvent, at: number): Anomaly[] {
    const place = this.#of(event);
    const { group, partition, offset } = event;
    const isFirst = !place.isKnown;
    place.isKnown = true;
    if (isFirst && place.mostOffset === 0n) {
      place.mostOffset = place.leastOffset = offset; // where a group begins is its own choice
      place.mostAt = place.leastAt = at;
      return [];
    }
    const goesOn = `group ${group} goes on at ${partition}/${offset}`;
    if (offset < place.leastOffset) {
      const what = `${goesOn}, though it has stored ${place.leastOffset}`;
      return [{ kind: 'nonmonotonic-poll', partition, what, events: eventsOf(place.leastAt, at) }];
    }
    if (offset <= place.mostOffset) return [];
    const what = `${goesOn}, though it has stored ${place.mostOffset} at most`;
    return [{ kind: 'skip', partition, what, events: eventsOf(place.mostAt, at) }];
  }

  #of({ group, partition }: CommitEvent | AssignEvent): GroupPlace {
    const name = JSON.stringify([group, partition]);
    const place = this.#places.get(name) ?? { isKnown: false, leastOffset: 0n, leastAt: 0, mostOffset: 0n, mostAt: 0 };
    this.#places.set(name, place);
    return place;
  }
}

/** Between what surely was stored and what may have been. */
interface GroupPlace {
  isKnown: boolean;
  leastOffset: bigint;
  leastAt: number;
  mostOffset: bigint;
  mostAt: number;
}

function placeOf({ partition, offset }: ReadValue): string {
  return `${partition}/${offset}`;
}

/** Each once, in their order. */
function eventsOf(...events: readonly number[]): number[] {
  return [...new Set(events)].sort((a, b) => a - b);
}
