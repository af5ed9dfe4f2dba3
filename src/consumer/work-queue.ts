import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import type { AssignorMember } from './assignor.ts';
import { SUSPICIOUS_ABANDONMENTS } from './group-tables.ts';
import type { ConsumerSettings } from './options.ts';
import { isSameOrigin, type Origin } from './origin.ts';
import { lowMarks, planWork, type RangeRow, type WorkPartition, type WorkPlan } from './range-plan.ts';
import { RangeTables, type WorkPlace } from './range-tables.ts';
import { partitionName, type CursorRow } from './sync-plan.ts';
import { WorkRange, type GivenBack, type TakenRange } from './work-range.ts';

/** What a heartbeat sees, in its transaction. */
export interface WorkSync {
  readonly members: readonly AssignorMember[];
  readonly rows: readonly CursorRow[];
  readonly origin: Origin;
  /** Whether this member is to give everything back: it stops, or the group is held. */
  readonly isEnding: boolean;
}

/** What a heartbeat has done, to be told once it is committed. */
export interface WorkSynced {
  /** Members that have something to do. */
  readonly wake: readonly string[];
  /** Whether something could not be taken because a commit of its former holder was under way. */
  readonly isTakeOpen: boolean;
  tell(): void;
}

/** What a member's share in a work queue tells, and asks. */
export interface WorkQueueEvents {
  /** Ranges that came into its hand. */
  taken(ranges: readonly WorkRange[]): void;
  /** Begin nothing more of it. */
  revoked(range: WorkRange): void;
  /** It is finished, or was given back in good order. */
  released(range: WorkRange): void;
  /** It is another's, or may be: nothing of it may be committed. */
  lost(range: WorkRange, isMoved: boolean): void;
  /** Where partitions end that this member owns, by name, as it knows. */
  ends(): ReadonlyMap<string, bigint>;
  /** Whether handlers are called at all. */
  mayTake(): boolean;
  /** How far partitions are finished, by name, has been read anew, and what was dealt and known of them. */
  synced(marks: ReadonlyMap<string, bigint>): void;
}

/**
 * The ranges of a work queue in the hands of this member: in each heartbeat, it hands in what is finished, and takes more. Its
 * hand is never fuller than `prefetch.records`.
 */
export class WorkQueue {
  readonly #settings: Pick<ConsumerSettings, 'memberId' | 'prefetch' | 'concurrency' | 'cursorIntervalMs'>;
  readonly #tables: RangeTables;
  readonly #events: WorkQueueEvents;
  readonly #ranges = new Map<string, WorkRange>();
  readonly #backlogs = new Map<string, bigint>();
  #placesDueAt = 0;
  /** As the last heartbeat has left it. */
  #atSync: { readonly inHand: number; readonly wasFull: boolean; readonly left: number } | undefined;

  constructor(
    settings: Pick<ConsumerSettings, 'schema' | 'group' | 'memberId' | 'prefetch' | 'concurrency' | 'cursorIntervalMs'>,
    events: WorkQueueEvents,
  ) {
    this.#settings = settings;
    this.#tables = new RangeTables(settings.schema, settings.group);
    this.#events = events;
  }

  get ranges(): readonly WorkRange[] {
    return [...this.#ranges.values()];
  }

  /** Records in its hand: not finished. */
  get inHand(): number {
    return this.ranges.reduce((sum, range) => sum + range.inHand, 0);
  }

  /** How many records of a partition are known and not dealt yet, as of the last heartbeat. */
  backlogOf(partition: { readonly topic: string; readonly partition: number }): bigint {
    return this.#backlogs.get(partitionName(partition)) ?? 0n;
  }

  /** Something of a range has ended. Answers whether a heartbeat is to come at once. */
  wantsSync(range: WorkRange): boolean {
    if (range.drained || range.givenBack.length > 0) return true;
    const last = this.#atSync;
    if (last === undefined || (last.left === 0 && !last.wasFull)) return false;
    const { inHand } = this;
    if (inHand > last.inHand / 2 && inHand >= this.#settings.concurrency) return false;
    this.#atSync = undefined; // asked once
    return true;
  }

  /** Hands in, and takes, inside the transaction of `client`. */
  async sync(client: pg.ClientBase, sync: WorkSync): Promise<WorkSynced> {
    const { memberId } = this.#settings;
    const rows = await this.#tables.ranges(client);
    const rooms = await this.#tables.rooms(client);
    if (sync.isEnding)
      for (const range of this.#ranges.values()) if (range.state === 'owned') this.#events.revoked(range);
    const handed = this.#handIn(rows);
    const partitions = this.#partitions(sync.rows);
    const room =
      sync.isEnding || !this.#events.mayTake() ? 0 : Math.max(0, this.#settings.prefetch.records - handed.inHand);
    const view = {
      memberId,
      members: sync.members.map((member) => ({ ...member, room: rooms.get(member.memberId) ?? 0 })),
      partitions: partitions.map(({ place }) => place),
      ranges: handed.rows,
      held: new Set([...this.#ranges.keys()].filter((lease) => !handed.gone.has(lease))),
      inHand: handed.inHand,
      room,
      isNews: handed.freed.length > 0 || partitions.some(({ isNews }) => isNews),
    };
    const plan = planWork(view);
    const seized = await this.#tables.seize(
      client,
      plan.taken.flatMap(({ row }) => (row.memberId === null ? [] : [row.lease])),
    );
    const taken = plan.taken.filter(({ row }) => row.memberId === null || seized.has(row.lease));
    const cut = this.#cut({ ...plan, taken });
    const removed = [...handed.gone, ...taken.map(({ row }) => row.lease)];
    await this.#tables.change(client, {
      removed,
      advanced: handed.advanced,
      added: [...handed.freed, ...cut.mine, ...cut.rest],
    });
    const kept = handed.rows.filter(({ lease }) => !removed.includes(lease));
    const places = placesOf(partitions, plan, [...kept, ...cut.mine, ...cut.rest]);
    await this.#tables.place(
      client,
      places.filter((place) => hasMoved(place, sync.rows)),
    );
    const inHand = handed.inHand + cut.mine.reduce((sum, { from, to }) => sum + Number(to - from), 0);
    const left = room === 0 ? 0 : room - (inHand - handed.inHand);
    if (left !== rooms.get(memberId)) await this.#tables.setRoom(client, memberId, left);
    const ranges = await this.#rangesOf(client, cut.mine, sync.origin);
    return {
      wake: plan.wake,
      isTakeOpen: taken.length < plan.taken.length,
      tell: () => {
        this.#tell(rows, handed, ranges);
        for (const { topic, partition, dealtTo, seenEnd } of places) {
          this.#backlogs.set(partitionName({ topic, partition }), seenEnd - dealtTo);
        }
        this.#atSync = { inHand, wasFull: left === 0, left: plan.left };
        this.#events.synced(new Map(places.map((place) => [partitionName(place), place.nextOffset])));
      },
    };
  }

  /** Gives everything back, inside the transaction of `client`. Nothing of it may run any more. */
  async giveUp(client: pg.ClientBase, sync: Omit<WorkSync, 'isEnding'>): Promise<WorkSynced> {
    for (const range of this.#ranges.values()) range.revoke();
    return this.sync(client, { ...sync, isEnding: true });
  }

  /** Nothing of this member's is its own any more; or only nothing that is not of `origin`. */
  loseAll(origin?: Origin): void {
    for (const range of this.ranges) {
      if (origin !== undefined && isSameOrigin(range.origin, origin)) continue;
      this.lose(range);
    }
  }

  /** A range is not this member's any more. */
  lose(range: WorkRange, isMoved = false): void {
    if (!this.#ranges.delete(range.lease)) return;
    this.#events.lost(range, isMoved);
  }

  /** What of this member's ranges is done with, and what becomes of their rows. */
  #handIn(rows: readonly RangeRow[]): HandedIn {
    const handed: MutableHandedIn = { gone: new Set(), advanced: [], freed: [], rows: [], inHand: 0, givenBack: [] };
    const isDue = performance.now() >= this.#placesDueAt;
    if (isDue) this.#placesDueAt = performance.now() + this.#settings.cursorIntervalMs;
    for (const row of rows) {
      const range = row.memberId === this.#settings.memberId ? this.#ranges.get(row.lease) : undefined;
      if (range === undefined) {
        handed.rows.push(row);
        continue;
      }
      const back = range.givenBack;
      handed.givenBack.push([range, back]);
      for (const { from, to, isReleased } of back) {
        handed.freed.push(this.#freed(row, from, to, isReleased ? this.#settings.memberId : row.releasedBy));
      }
      if (range.isFinished || range.drained) {
        handed.gone.add(row.lease);
        if (!range.isFinished) handed.freed.push(this.#freed(row, range.nextOffset, row.to, row.releasedBy));
        continue;
      }
      const hasMoved = range.nextOffset > row.from && (isDue || back.length > 0);
      if (hasMoved) handed.advanced.push({ lease: row.lease, from: range.nextOffset });
      handed.rows.push(hasMoved ? { ...row, from: range.nextOffset } : row);
      handed.inHand += range.inHand;
    }
    handed.rows.push(...handed.freed);
    return handed;
  }

  #freed(row: RangeRow, from: bigint, to: bigint, releasedBy: string | null): RangeRow {
    return { ...row, lease: randomUUID(), from, to, memberId: null, releasedBy };
  }

  /** What is taken, with leases of its own, and what is left of ranges of which only a part is. */
  #cut({ taken, dealt }: Pick<WorkPlan, 'taken' | 'dealt'>): { mine: RangeRow[]; rest: RangeRow[] } {
    const { memberId } = this.#settings;
    const fresh = { memberId, abandonments: 0, releasedBy: null };
    const lying = taken.map(({ row, to }) => ({
      row,
      to,
      abandonments: row.abandonments + (row.memberId === null ? 0 : 1),
    }));
    return {
      mine: [
        ...lying.map(({ row, to, abandonments }) => ({ ...row, lease: randomUUID(), to, memberId, abandonments })),
        ...dealt.map((range) => ({ ...range, ...fresh, lease: randomUUID() })),
      ],
      rest: lying
        .filter(({ row, to }) => to < row.to)
        .map(({ row, to, abandonments }) => ({ ...row, lease: randomUUID(), from: to, memberId: null, abandonments })),
    };
  }

  /** What there is to be dealt, with what this member knows of the ends of the partitions that it owns. */
  #partitions(
    rows: readonly CursorRow[],
  ): { readonly place: WorkPartition; readonly isNews: boolean; readonly row: CursorRow }[] {
    const ends = this.#events.ends();
    return rows.flatMap((row) => {
      const { topic, partition, nextOffset, dealtTo, seenEnd, owner } = row;
      const known = owner === this.#settings.memberId ? ends.get(partitionName(row)) : undefined;
      const isNews = known !== undefined && known > (seenEnd ?? -1n);
      const end = isNews ? known : seenEnd;
      if (end === undefined) return [];
      const begin = dealtTo ?? nextOffset;
      return [{ place: { topic, partition, dealtTo: begin, seenEnd: end > begin ? end : begin }, isNews, row }];
    });
  }

  async #rangesOf(client: pg.ClientBase, mine: readonly RangeRow[], origin: Origin): Promise<WorkRange[]> {
    const byName = new Map(mine.map((row) => [partitionName(row), row]));
    const facts = new Map(
      (await this.#tables.replays(client, [...byName.values()])).map((one) => [partitionName(one), one]),
    );
    return mine.flatMap((row) => {
      const fact = facts.get(partitionName(row));
      if (fact === undefined) return [];
      const suspectBelow = row.abandonments >= SUSPICIOUS_ABANDONMENTS ? row.to : 0n;
      const taken: TakenRange = {
        ...fact,
        epoch: 0n,
        nextOffset: row.from,
        to: row.to,
        lease: row.lease,
        suspectBelow,
      };
      return [new WorkRange(taken, origin)];
    });
  }

  #tell(rows: readonly RangeRow[], { gone, givenBack }: HandedIn, taken: readonly WorkRange[]): void {
    const there = new Set(rows.map(({ lease }) => lease));
    for (const [range, back] of givenBack) range.handedIn(back);
    for (const range of this.ranges) {
      if (gone.has(range.lease) || (!there.has(range.lease) && range.isFinished)) {
        this.#ranges.delete(range.lease);
        this.#events.released(range);
      } else if (!there.has(range.lease)) this.lose(range, true);
    }
    for (const range of taken) this.#ranges.set(range.lease, range);
    if (taken.length > 0) this.#events.taken(taken);
  }
}

interface HandedIn {
  /** Leases of this member that end. */
  readonly gone: ReadonlySet<string>;
  readonly advanced: readonly { readonly lease: string; readonly from: bigint }[];
  /** What is free from now on. */
  readonly freed: readonly RangeRow[];
  /** All ranges, as they are from now on. */
  readonly rows: readonly RangeRow[];
  /** Records that stay in the hand. */
  readonly inHand: number;
  readonly givenBack: readonly (readonly [range: WorkRange, back: readonly GivenBack[]])[];
}

interface MutableHandedIn extends HandedIn {
  readonly gone: Set<string>;
  readonly advanced: { readonly lease: string; readonly from: bigint }[];
  readonly freed: RangeRow[];
  readonly rows: RangeRow[];
  inHand: number;
  readonly givenBack: [range: WorkRange, back: readonly GivenBack[]][];
}

function placesOf(
  partitions: readonly { readonly place: WorkPartition }[],
  { dealt }: Pick<WorkPlan, 'dealt'>,
  ranges: readonly RangeRow[],
): WorkPlace[] {
  const ends = new Map<string, bigint>();
  for (const range of dealt) ends.set(partitionName(range), range.to); // of a partition, the last is the furthest
  const places = partitions.map(({ place }) => ({
    ...place,
    dealtTo: ends.get(partitionName(place)) ?? place.dealtTo,
  }));
  const marks = lowMarks(places, ranges);
  return places.map((place) => ({ ...place, nextOffset: marks.get(partitionName(place)) ?? place.dealtTo }));
}

function hasMoved(place: WorkPlace, rows: readonly CursorRow[]): boolean {
  const row = rows.find((one) => one.topic === place.topic && one.partition === place.partition);
  return row?.dealtTo !== place.dealtTo || row.seenEnd !== place.seenEnd || row.nextOffset < place.nextOffset;
}
