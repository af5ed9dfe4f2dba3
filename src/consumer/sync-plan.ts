import type { AssignorMember } from './assignor.ts';
import { assignWithCanaries } from './canaries.ts';

/** A partition's place in a group, as the database has it. */
export interface CursorRow {
  readonly topic: string;
  readonly partition: number;
  /** Every record below it is handled or parked. */
  readonly nextOffset: bigint;
  /** Rises with every new owner. */
  readonly epoch: bigint;
  /** Rises when the place is moved back, so that messages are handled again. */
  readonly generation: number;
  /** Who handles the partition; a member that is gone may stand here. */
  readonly owner: string | null;
  /** Who is to handle it. */
  readonly wanted: string | null;
  /**
   * Of a partition that was added while the group read its topic: nobody takes it before the group has come to these offsets
   * in the partitions 0, 1, …, so that the order of a key that moved here is kept.
   */
  readonly opensAfter: readonly bigint[] | null;
  /** Of a work queue: records below it are in a range or finished; those from there to `seenEnd` are to be dealt. */
  readonly dealtTo?: bigint;
  readonly seenEnd?: bigint;
}

/** A partition that this member believes to own. */
export interface Holding {
  readonly topic: string;
  readonly partition: number;
  readonly epoch: bigint;
  readonly generation: number;
  /** Whether it is being given up: nothing new is begun. */
  readonly revoking: boolean;
  /** Whether it is being given up and nothing of it runs any more. */
  readonly drained: boolean;
}

/** What a member sees while it holds the group's lock. */
export interface SyncView<H extends Holding> {
  readonly memberId: string;
  /** Whether this member stops, and takes nothing more. */
  readonly isLeaving?: boolean;
  /** Whether the whole group is to have no partitions: it hands over to another one, or waits for it. */
  readonly isHeld?: boolean;
  /** The share of partitions for members that are canaries. */
  readonly canaryPercent?: number;
  /** The members whose lease runs, this one among them. */
  readonly members: readonly AssignorMember[];
  readonly rows: readonly CursorRow[];
  readonly holdings: readonly H[];
}

/** What a member does about it. A holding is in none or one of the lists. */
export interface SyncPlan<H extends Holding> {
  /** Rows whose `wanted` changes. */
  readonly wanted: readonly { readonly row: CursorRow; readonly wanted: string | null }[];
  /** Rows of this member to set free. */
  readonly release: readonly CursorRow[];
  /** Rows to take, with a new epoch, once no commit of a former owner is under way. */
  readonly take: readonly CursorRow[];
  /** To be given up: stop beginning records. */
  readonly revoke: readonly H[];
  /** Given up in good order: its row is released, or taken anew. */
  readonly released: readonly H[];
  /** Not this member's any more, by what the rows say. */
  readonly lost: readonly H[];
  /** Other members that have something to do now. */
  readonly wake: readonly string[];
}

/**
 * Decides one step of the two-phase handover. A partition whose owner is alive and not the wanted one is first given up by
 * its owner, then taken by the other; nobody else pauses. A partition that is free, or whose owner's lease has run out, is
 * taken by the wanted member at once. A row that names this member without its holding it (it had to let go, or runs anew
 * under its old name) counts as free. A partition that was added later is not taken before it is open.
 */
export function planSync<H extends Holding>(view: SyncView<H>): SyncPlan<H> {
  const { memberId: me, isLeaving = false, isHeld = false, canaryPercent = 0 } = view;
  const live = new Map(view.members.map((member) => [member.memberId, member]));
  const wantedNow = assignWithCanaries(
    isHeld ? [] : view.members,
    view.rows.map((row) => ({ ...row, current: currentOf(row, live) })),
    canaryPercent,
  );
  const holdings = new Map(view.holdings.map((holding) => [partitionName(holding), holding]));
  const places = new Map(view.rows.map((row) => [partitionName(row), row.nextOffset]));
  const plan = { wanted: [], release: [], take: [], revoke: [], released: [], lost: [] } as MutablePlan<H>;
  const wake = new Set<string | null>();

  view.rows.forEach((row, at) => {
    const wanted = wantedNow[at] ?? null;
    const holding = holdings.get(partitionName(row));
    holdings.delete(partitionName(row));
    const holds = holding !== undefined && stillHolds(holding, row, me);
    if (holding !== undefined && !holds) plan.lost.push(holding);
    if (wanted !== row.wanted) plan.wanted.push({ row, wanted });

    if (holds && !holding.drained) {
      if (wanted !== me && !holding.revoking) plan.revoke.push(holding);
      return;
    }
    if (holds) plan.released.push(holding);
    const isMine = row.owner === me;
    const isFree = isMine || row.owner === null || !live.has(row.owner);
    if (isFree && wanted === me && !isLeaving && isOpen(row, places)) plan.take.push(row);
    else if (isMine) plan.release.push(row);
    if (isMine || wanted !== row.wanted) wake.add(isFree ? wanted : row.owner);
  });
  plan.lost.push(...holdings.values());
  wake.delete(me);
  wake.delete(null);
  return { ...plan, wake: [...wake] as string[] };
}

type MutablePlan<H extends Holding> = {
  -readonly [Name in keyof Omit<SyncPlan<H>, 'wake'>]: SyncPlan<H>[Name][number][];
};

/** Names a partition within a group. */
export function partitionName({ topic, partition }: { readonly topic: string; readonly partition: number }): string {
  return `${topic}/${partition}`;
}

function stillHolds(holding: Holding, row: CursorRow, me: string): boolean {
  return row.owner === me && row.epoch === holding.epoch && row.generation === holding.generation;
}

/**
 * Whether a partition that is lost was taken away by a seek: it begins anew, or nobody has taken it. An owner that did not
 * hear of the end of its lease is told so before.
 */
export function wasMoved(holding: Holding, rows: readonly CursorRow[]): boolean {
  const row = rows.find((each) => each.topic === holding.topic && each.partition === holding.partition);
  if (row === undefined) return false;
  return row.generation !== holding.generation || (row.owner === null && row.epoch > holding.epoch);
}

/** Whether everything that was appended to the topic before this partition was added is handled or parked. */
function isOpen({ topic, opensAfter }: CursorRow, places: ReadonlyMap<string, bigint>): boolean {
  return (opensAfter ?? []).every(
    (offset, partition) => (places.get(partitionName({ topic, partition })) ?? -1n) >= offset,
  );
}

/** Who is to keep the partition if that can be: the one it was promised to, else the one that has it. */
function currentOf(row: CursorRow, live: ReadonlyMap<string, AssignorMember>): string | null {
  const mayOwn = (id: string | null): boolean => id !== null && live.get(id)?.topics.includes(row.topic) === true;
  return mayOwn(row.wanted) ? row.wanted : row.owner;
}
