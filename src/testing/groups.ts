import type { Consumer } from '../consumer/consumer.ts';
import type { LiveMember, PipelineTables, Place, StoredPlace } from './pipeline-tables.ts';

/** How far a group is behind. */
export interface GroupProgress {
  readonly group: string;
  /** Messages of its topics that it has neither handled nor set aside for good; those that wait for a retry count. */
  readonly behind: number;
  /** Whether one of its members has ever been there: before that nobody knows its topics. */
  readonly isKnown: boolean;
  /** What its members in this pipeline say. */
  readonly note: string;
}

interface GroupViews {
  readonly members: readonly LiveMember[];
  readonly stored: readonly StoredPlace[];
}

interface RegisteredConsumer {
  readonly consumer: Consumer<unknown>;
  group: string | undefined;
}

/**
 * The groups that read a pipeline's log: those of registered consumers, whether or not they run, and every group that has a
 * live member. What a registered consumer has done is known from itself, at once; of others, from what they have stored.
 */
export class Groups {
  readonly #tables: PipelineTables;
  readonly #registered: RegisteredConsumer[] = [];

  constructor(tables: PipelineTables) {
    this.#tables = tables;
  }

  /** `group` may be left out for a consumer that is started before the next look. */
  register(consumer: Consumer<unknown>, group?: string): void {
    if (this.#registered.some((known) => known.consumer === consumer)) return;
    this.#registered.push({ consumer, group });
  }

  /** All registered consumers. */
  get consumers(): Consumer<unknown>[] {
    return this.#registered.map(({ consumer }) => consumer);
  }

  /** How far every group is from the given ends. */
  async progress(ends: readonly Place[]): Promise<GroupProgress[]> {
    const [members, stored] = await Promise.all([this.#tables.liveMembers(), this.#tables.storedPlaces()]);
    const groups = new Map(members.map(({ memberId, group }) => [memberId, group]));
    for (const known of this.#registered) known.group ??= groups.get(known.consumer.status().memberId);
    const names = new Set([...groups.values(), ...this.#registered.flatMap(({ group }) => group ?? [])]);
    const progress = [...names].sort().map((group) => this.#progressOf(group, ends, { members, stored }));
    // Asked for last: what a member has passed, because it is parked, is in the table by then.
    const parked = await this.#tables.parked(ends);
    return progress.map((one) => ({ ...one, behind: one.behind + (parked.get(one.group) ?? 0) }));
  }

  #progressOf(group: string, ends: readonly Place[], views: GroupViews): GroupProgress {
    const statuses = this.#registered.filter((known) => known.group === group).map(({ consumer }) => consumer.status());
    const stored = views.stored.filter((place) => place.group === group);
    const topics = topicsOf(group, { ...views, stored });
    return {
      group,
      behind: countBehind(
        ends.filter(({ topic }) => topics.has(topic)),
        [...stored, ...statuses.flatMap(({ assignments }) => assignments)],
      ),
      isKnown: topics.size > 0,
      note: statuses
        .map(({ state, running, problem }) => [state, `handlers running: ${running}`, problem ?? []].flat().join(', '))
        .join('; '),
    };
  }
}

/** What its members handle; where none is there, what former members have handled. */
function topicsOf(group: string, { members, stored }: GroupViews): ReadonlySet<string> {
  const handled = members.filter((member) => member.group === group).flatMap(({ topics }) => topics);
  return new Set(handled.length > 0 ? handled : stored.map(({ topic }) => topic));
}

/** How many offsets lie between the places and the ends. Of several places in a partition the furthest counts. */
export function countBehind(ends: readonly Place[], places: readonly Place[]): number {
  const furthest = new Map<string, bigint>();
  for (const place of places) {
    const known = furthest.get(nameOf(place)) ?? 0n;
    furthest.set(nameOf(place), place.nextOffset > known ? place.nextOffset : known);
  }
  const gaps = ends.map((end) => end.nextOffset - (furthest.get(nameOf(end)) ?? 0n));
  return Number(gaps.filter((gap) => gap > 0n).reduce((sum, gap) => sum + gap, 0n));
}

function nameOf({ topic, partition }: Place): string {
  return `${topic}/${partition}`;
}
