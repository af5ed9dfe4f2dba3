import { assign, type AssignorMember, type AssignorPartition } from './assignor.ts';

/**
 * Decides who is to own what, as {@link assign}, where some members are canaries: of the partitions that both kinds can have,
 * the canaries get `percent` of a hundred, rounded, but at least one and, below 100, not all of them; at 0 none. Where one kind
 * is not there, or does not handle a topic, the other has it. Those that canaries have stay theirs as long as the share allows;
 * more are taken in the order of their numbers, of all topics alike.
 */
export function assignWithCanaries(
  members: readonly AssignorMember[],
  partitions: readonly AssignorPartition[],
  percent: number,
): (string | null)[] {
  const canaries = members.filter(({ canary }) => canary === true);
  const others = members.filter(({ canary }) => canary !== true);
  if (canaries.length === 0 || others.length === 0) return assign(members, partitions);
  const shared = new Set(shareOf(canaries, others, partitions, percent));
  const canHave = topicsOf(others);
  const isForCanaries = (each: AssignorPartition): boolean => shared.has(each) || !canHave.has(each.topic);
  const owners = new Map([
    ...ownersAmong(canaries, partitions.filter(isForCanaries)),
    ...ownersAmong(
      others,
      partitions.filter((each) => !isForCanaries(each)),
    ),
  ]);
  return partitions.map((each) => owners.get(each) ?? null);
}

/** How many of so many partitions canaries get. */
export function canaryShare(partitions: number, percent: number): number {
  if (percent === 0) return 0;
  const most = percent === 100 ? partitions : partitions - 1;
  return Math.max(0, Math.min(most, Math.max(1, Math.round((partitions * percent) / 100))));
}

function shareOf(
  canaries: readonly AssignorMember[],
  others: readonly AssignorMember[],
  partitions: readonly AssignorPartition[],
  percent: number,
): AssignorPartition[] {
  const [theirs, ours] = [topicsOf(canaries), topicsOf(others)];
  const names = new Set(canaries.map(({ memberId }) => memberId));
  const isHeld = ({ current }: AssignorPartition): boolean => current !== null && names.has(current);
  const both = partitions.filter(({ topic }) => theirs.has(topic) && ours.has(topic));
  const inOrder = [...both].sort((a, b) => Number(isHeld(b)) - Number(isHeld(a)) || byNumber(a, b));
  return inOrder.slice(0, canaryShare(both.length, percent));
}

function ownersAmong(
  members: readonly AssignorMember[],
  partitions: readonly AssignorPartition[],
): [AssignorPartition, string | null][] {
  const owners = assign(members, partitions);
  return partitions.map((each, at) => [each, owners[at] ?? null]);
}

function topicsOf(members: readonly AssignorMember[]): Set<string> {
  return new Set(members.flatMap(({ topics }) => topics));
}

function byNumber(a: AssignorPartition, b: AssignorPartition): number {
  return a.partition - b.partition || (a.topic < b.topic ? -1 : 1);
}
