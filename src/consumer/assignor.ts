/** A live member of a group, and the topics it has handlers for. */
export interface AssignorMember {
  readonly memberId: string;
  readonly topics: readonly string[];
  /** Whether it is one of those that get a share of their own: see {@link assignWithCanaries}. */
  readonly canary?: boolean;
}

/** A partition, and the member that has it or is to get it, if that member is still there. */
export interface AssignorPartition {
  readonly topic: string;
  readonly partition: number;
  readonly current: string | null;
}

interface Load {
  readonly memberId: string;
  readonly topics: ReadonlySet<string>;
  /** What it has, by topic. */
  readonly partitions: Map<string, AssignorPartition[]>;
  size: number;
}

/**
 * Decides who is to own what: every partition of a topic that somebody handles gets a member that handles it, the sizes of
 * the members' shares are as equal as their topics allow, and of all such answers this one moves few partitions (the
 * fewest, when all members handle the same topics). The same question has the same answer in every process. Returns the
 * new owner of each partition, in the order of `partitions`; `null` where nobody handles the topic.
 *
 * The shares are made equal by moving one partition at a time along a short chain of members from a greater share to
 * one smaller by at least two, until there is no such chain: the optimal semi-matching of Harvey, Ladner, Lovász and
 * Tamir (2003).
 */
export function assign(
  members: readonly AssignorMember[],
  partitions: readonly AssignorPartition[],
): (string | null)[] {
  const loads = emptyLoads(members);
  placeAll(loads, partitions);
  while (levelOnce(loads));
  const owners = new Map<AssignorPartition, string>();
  for (const load of loads) for (const part of allOf(load)) owners.set(part, load.memberId);
  return partitions.map((partition) => owners.get(partition) ?? null);
}

function emptyLoads(members: readonly AssignorMember[]): Load[] {
  return members
    .map(({ memberId, topics }) => ({ memberId, topics: new Set(topics), partitions: new Map(), size: 0 }))
    .sort((a, b) => (a.memberId < b.memberId ? -1 : 1));
}

/** Leaves each partition where it is, if that can be; gives the rest, in order, to the smallest shares. */
function placeAll(loads: Load[], partitions: readonly AssignorPartition[]): void {
  const byId = new Map(loads.map((load) => [load.memberId, load]));
  const homeless = partitions.filter((partition) => {
    const home = partition.current === null ? undefined : byId.get(partition.current);
    if (home?.topics.has(partition.topic) !== true) return true;
    give(home, partition);
    return false;
  });
  for (const partition of homeless.sort(byName)) {
    const home = smallest(loads.filter((load) => load.topics.has(partition.topic)));
    if (home !== undefined) give(home, partition);
  }
}

/** Moves partitions along the shortest chain that makes the shares more equal. Returns whether there was one. */
function levelOnce(loads: readonly Load[]): boolean {
  const bySize = [...loads].sort((a, b) => b.size - a.size);
  const least = bySize.at(-1)?.size ?? 0;
  let best: Link[] | undefined;
  for (const giver of bySize) {
    if (giver.size < least + 2 || best?.length === 1) break;
    const chain = chainToSmaller(giver, loads);
    if (chain !== undefined && (best === undefined || chain.length < best.length)) best = chain;
  }
  for (const [from, to, topic] of best ?? []) moveOne(from, to, topic);
  return best !== undefined;
}

type Link = readonly [from: Load, to: Load, topic: string];

/** The shortest chain of hand-overs from `giver` to the smallest share in reach, if that is smaller by two or more. */
function chainToSmaller(giver: Load, loads: readonly Load[]): Link[] | undefined {
  const reached = new Map<Load, Link | undefined>([[giver, undefined]]);
  for (const [from] of reached) {
    for (const to of loads) {
      if (reached.has(to)) continue;
      const topic = [...from.partitions].find(([name, held]) => held.length > 0 && to.topics.has(name))?.[0];
      if (topic !== undefined) reached.set(to, [from, to, topic]);
    }
  }
  const end = smallest([...reached.keys()].filter((load) => load.size <= giver.size - 2));
  return end === undefined ? undefined : chainBackFrom(end, reached);
}

function chainBackFrom(end: Load, reached: ReadonlyMap<Load, Link | undefined>): Link[] {
  const chain: Link[] = [];
  for (let link = reached.get(end); link !== undefined; link = reached.get(link[0])) chain.push(link);
  return chain.reverse();
}

/** Hands over a partition of `topic`, if possible one that `from` does not have yet or that `to` had. */
function moveOne(from: Load, to: Load, topic: string): void {
  const held = from.partitions.get(topic) ?? [];
  const best = [
    held.findIndex((partition) => partition.current === to.memberId),
    held.findLastIndex((partition) => partition.current !== from.memberId),
    held.length - 1,
  ].find((at) => at >= 0);
  const [partition] = held.splice(best ?? 0, 1);
  if (partition === undefined) return;
  from.size -= 1;
  give(to, partition);
}

function give(load: Load, partition: AssignorPartition): void {
  const held = load.partitions.get(partition.topic) ?? [];
  held.push(partition);
  load.partitions.set(partition.topic, held);
  load.size += 1;
}

function allOf(load: Load): AssignorPartition[] {
  return [...load.partitions.values()].flat();
}

/** The smallest share; of several the first. */
function smallest(loads: readonly Load[]): Load | undefined {
  return loads.reduce<Load | undefined>(
    (best, load) => (best === undefined || load.size < best.size ? load : best),
    undefined,
  );
}

function byName(a: AssignorPartition, b: AssignorPartition): number {
  if (a.topic !== b.topic) return a.topic < b.topic ? -1 : 1;
  return a.partition - b.partition;
}
