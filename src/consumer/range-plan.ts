import { partitionName } from './sync-plan.ts';

/** A range of records of a partition as the group's table has it. */
export interface RangeRow {
  /** Made anew whenever the range changes hands. */
  readonly lease: string;
  readonly topic: string;
  readonly partition: number;
  readonly from: bigint;
  /** The first offset behind it. */
  readonly to: bigint;
  /** Who has it; `null`: nobody. A member that is gone may stand here. */
  readonly memberId: string | null;
  /** How many members in a row have died with it. */
  readonly abandonments: number;
  /** Who has given it back, so that another one may try. */
  readonly releasedBy: string | null;
}

/** A live member of a work queue. */
export interface WorkMember {
  readonly memberId: string;
  readonly topics: readonly string[];
  /** How many records more it could take when it was last heard. */
  readonly room: number;
}

/** What is to be dealt of a partition: the records from `dealtTo` to `seenEnd`. */
export interface WorkPartition {
  readonly topic: string;
  readonly partition: number;
  readonly dealtTo: bigint;
  readonly seenEnd: bigint;
}

/** What a member sees of the group's work while it holds the group's lock. */
export interface WorkView {
  readonly memberId: string;
  /** The members whose lease runs, this one among them. */
  readonly members: readonly WorkMember[];
  readonly partitions: readonly WorkPartition[];
  readonly ranges: readonly RangeRow[];
  /** The leases of the ranges that this member knows to have. */
  readonly held: ReadonlySet<string>;
  /** The records in its hand, and how many more it can take. */
  readonly inHand: number;
  readonly room: number;
  /** Whether there is more to be had than others know of: they are woken, as many as there is work for. */
  readonly isNews: boolean;
}

/** A part of a partition that is dealt out for the first time. */
export interface DealtRange {
  readonly topic: string;
  readonly partition: number;
  readonly from: bigint;
  readonly to: bigint;
}

/** What a member takes. */
export interface WorkPlan {
  /** Ranges that lie about, each up to `to`; what is behind that stays free. */
  readonly taken: readonly { readonly row: RangeRow; readonly to: bigint }[];
  readonly dealt: readonly DealtRange[];
  /** Records that it could handle, and left for others or for later. */
  readonly left: number;
  /** Other members that are to come for work. */
  readonly wake: readonly string[];
}

/** A range is no longer than this: what holds it open holds little up. */
export const LONGEST_RANGE = 500n;

/**
 * Decides what a member of a work queue takes: no more than it has room for, and no more than makes its hand as full as
 * those of the others that have room. So plenty of work fills everybody's hands, and little work is spread thin. What lies
 * about comes first: ranges that were given back, and those of members that are gone. Then each partition gives as much as
 * the others, as long as it has something.
 */
export function planWork(view: WorkView): WorkPlan {
  const me = view.members.find(({ memberId }) => memberId === view.memberId);
  if (me === undefined) return { taken: [], dealt: [], left: 0, wake: [] };
  const topics = new Set(me.topics);
  const hungry = view.members.filter(
    (member) => member !== me && member.room > 0 && member.topics.some((topic) => topics.has(topic)),
  );
  const lying = lyingAbout(view, topics, hungry.length > 0);
  const undealt = view.partitions.filter((one) => topics.has(one.topic) && one.seenEnd > one.dealtTo);
  const available = sum(lying.map(sizeOf)) + sum(undealt.map(({ dealtTo, seenEnd }) => seenEnd - dealtTo));
  const hands = handsOf(view);
  const total = sum(hungry.map(({ memberId }) => hands.get(memberId) ?? 0n)) + BigInt(view.inHand) + available;
  const target = ceilDiv(total, BigInt(hungry.length + 1));
  const wanted = least(available, most(0n, target - BigInt(view.inHand)), BigInt(Math.max(0, view.room)));
  const taken = takeLying(lying, wanted);
  const dealt = deal(undealt, wanted - sum(taken.map(({ row, to }) => to - row.from)));
  const left = available - wanted;
  return { taken, dealt, left: Number(left), wake: view.isNews ? wakeFor(left, target, hungry, hands) : [] };
}

/** Whether nobody has a range: it is free, its member is gone, or it is this member's of before it died. */
function isLyingAbout(row: RangeRow, view: WorkView): boolean {
  if (row.memberId === null) return true;
  if (row.memberId === view.memberId) return !view.held.has(row.lease);
  return !view.members.some(({ memberId }) => memberId === row.memberId);
}

/** How far each partition is finished: everything below is. */
export function lowMarks(
  partitions: readonly WorkPartition[],
  ranges: readonly Pick<RangeRow, 'topic' | 'partition' | 'from'>[],
): Map<string, bigint> {
  const marks = new Map(partitions.map((one) => [partitionName(one), one.dealtTo]));
  for (const range of ranges) {
    const mark = marks.get(partitionName(range));
    if (mark !== undefined && range.from < mark) marks.set(partitionName(range), range.from);
  }
  return marks;
}

function lyingAbout(view: WorkView, topics: ReadonlySet<string>, hasOthers: boolean): RangeRow[] {
  return view.ranges
    .filter((row) => topics.has(row.topic) && isLyingAbout(row, view))
    .filter(({ releasedBy }) => !hasOthers || releasedBy !== view.memberId)
    .sort((a, b) =>
      a.topic === b.topic ? a.partition - b.partition || compare(a.from, b.from) : compare(a.topic, b.topic),
    );
}

function handsOf({ ranges }: WorkView): Map<string, bigint> {
  const hands = new Map<string, bigint>();
  for (const row of ranges) {
    if (row.memberId !== null) hands.set(row.memberId, (hands.get(row.memberId) ?? 0n) + sizeOf(row));
  }
  return hands;
}

function takeLying(lying: readonly RangeRow[], wanted: bigint): { row: RangeRow; to: bigint }[] {
  const taken: { row: RangeRow; to: bigint }[] = [];
  let open = wanted;
  for (const row of lying) {
    if (open <= 0n) break;
    const size = least(sizeOf(row), open);
    taken.push({ row, to: row.from + size });
    open -= size;
  }
  return taken;
}

function deal(undealt: readonly WorkPartition[], wanted: bigint): DealtRange[] {
  const bySize = [...undealt].sort((a, b) => compare(a.seenEnd - a.dealtTo, b.seenEnd - b.dealtTo));
  let open = wanted;
  return bySize.flatMap(({ topic, partition, dealtTo, seenEnd }, at) => {
    const size = least(seenEnd - dealtTo, ceilDiv(open, BigInt(bySize.length - at)));
    open -= size;
    return chunks(dealtTo, dealtTo + size).map((chunk) => ({ topic, partition, ...chunk }));
  });
}

function chunks(from: bigint, to: bigint): { from: bigint; to: bigint }[] {
  const cut: { from: bigint; to: bigint }[] = [];
  for (let at = from; at < to; at += LONGEST_RANGE) cut.push({ from: at, to: least(at + LONGEST_RANGE, to) });
  return cut;
}

/** As many as are needed for what is left, those with the emptiest hands first. */
function wakeFor(
  left: bigint,
  target: bigint,
  hungry: readonly WorkMember[],
  hands: ReadonlyMap<string, bigint>,
): string[] {
  const handOf = ({ memberId }: WorkMember): bigint => hands.get(memberId) ?? 0n;
  const woken: string[] = [];
  let open = left;
  for (const member of [...hungry].sort((a, b) => compare(handOf(a), handOf(b)))) {
    if (open <= 0n) break;
    woken.push(member.memberId);
    open -= most(1n, least(target - handOf(member), BigInt(member.room)));
  }
  return woken;
}

function sizeOf({ from, to }: { readonly from: bigint; readonly to: bigint }): bigint {
  return to - from;
}

function sum(numbers: readonly bigint[]): bigint {
  return numbers.reduce((total, one) => total + one, 0n);
}

function ceilDiv(a: bigint, b: bigint): bigint {
  return (a + b - 1n) / b;
}

function least(...numbers: readonly [bigint, ...bigint[]]): bigint {
  return numbers.reduce((a, b) => (b < a ? b : a));
}

function most(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

function compare<Ordered extends bigint | string>(a: Ordered, b: Ordered): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
