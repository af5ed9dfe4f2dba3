import { hostname } from 'node:os';
import type pg from 'pg';
import { backoffMs } from '../base/backoff.ts';
import { isSameCluster, type Cluster } from '../base/cluster.ts';
import { TailraceError, isTailraceError, messageOf } from '../base/errors.ts';
import { Signal } from '../base/signal.ts';
import { readCluster } from '../postgres/cluster.ts';
import type { AssignorMember } from './assignor.ts';
import { isTransient } from '../postgres/sqlstate.ts';
import { addedAmong, heldUp } from './added-partitions.ts';
import { GroupSession } from './group-session.ts';
import { GroupTables, type GroupState, type PlaceInPartition, type TakenPartition } from './group-tables.ts';
import type { ConsumerMode, ConsumerSettings } from './options.ts';
import { elsewhere, fits, isSameOrigin, isShared, type Origin } from './origin.ts';
import type { WorkQueue } from './work-queue.ts';
import type { ProgressingHolding } from './progressing-holding.ts';
import { missingPlaces, type TopicFacts } from './start-positions.ts';
import { partitionName, planSync, wasMoved, type CursorRow, type Holding, type SyncPlan } from './sync-plan.ts';
import type { TopicWatch } from './topic-watch.ts';

/** Which start of a member this is, and where that was counted. */
interface Joined {
  readonly incarnation: bigint;
  readonly database: Cluster;
}

/** When to try again to take a partition in which a commit is under way. */
const RETAKE_MS = 20;

/** What a member tells of its partitions, and is told about them. */
export interface MembershipEvents<H extends ProgressingHolding> {
  holdings(): readonly H[];
  /** The partition is to be handled from `nextOffset` on. */
  taken(partition: TakenPartition, origin: Origin): void;
  /** Begin nothing more of it, and call {@link Membership.wake} once nothing of it runs. */
  revoked(holding: H): void;
  /** It was given up in good order. */
  released(holding: H): void;
  /** It is another's, or may be: nothing of it may be committed. `isMoved`: an operator has moved the group's place in it. */
  lost(holding: H, isMoved?: boolean): void;
  /** A topic has appeared in the log, or has more partitions. */
  topicsChanged(): void;
  /** Partitions may begin records further on than before. */
  reachExtended(): void;
  /** An operator has changed what is parked of this group. */
  parkedChanged(): void;
  /** Another member has parked something that will be due after this time. */
  dueAfter(ms: number): void;
}

type MembershipSettings = Pick<
  ConsumerSettings,
  | 'log'
  | 'database'
  | 'schema'
  | 'schemaName'
  | 'group'
  | 'memberId'
  | 'staticLeaseMs'
  | 'ephemeral'
  | 'canary'
  | 'mode'
  | 'leaseMs'
  | 'heartbeatMs'
  | 'cursorIntervalMs'
  | 'inbox'
  | 'logger'
>;

/**
 * Keeps one member in its group: one transaction a heartbeat, in which the member prolongs its lease, decides with the
 * pure planner what is whose, stores its places and takes or frees partitions. A lease is trusted no longer than it
 * lasts, counted on the monotonic clock from before it was asked for.
 */
export class Membership<H extends ProgressingHolding> {
  readonly #settings: MembershipSettings;
  #topics: readonly string[];
  readonly #watch: TopicWatch;
  readonly #events: MembershipEvents<H>;
  readonly #tables: GroupTables;
  readonly #wake = new Signal();
  readonly #stopped = new AbortController();
  #session: GroupSession | undefined;
  #loop: Promise<void> = Promise.resolve();
  #trustedUntil = Number.NEGATIVE_INFINITY;
  #fence: NodeJS.Timeout | undefined;
  #placesDueAt = 0;
  /** Whether a partition could not be taken because a commit of its former owner was under way. */
  #isTakeOpen = false;
  #failures = 0;
  /** Which start of the member this is, and where that was counted. */
  #joined: Joined | undefined;
  #isLeaving = false;
  #isFenced = false;
  /** For which group this one is held, as far as this member knows. */
  #heldFor: string | undefined;
  /** Where an ephemeral group is, should it have been removed while its process slept. */
  #remembered: { readonly origin: Origin; readonly places: readonly PlaceInPartition[] } | undefined;
  /** Whether log and database are one cluster, as long as that is not known to be otherwise from the beginning. */
  #isShared: boolean | undefined;
  readonly #work: WorkQueue | undefined;
  /** How soon something is due that this member has parked, and the owners do not know. */
  #dueMs: number | undefined;
  #problem: string | undefined;

  /** `work`: this member's share of a work queue. */
  constructor(
    settings: MembershipSettings,
    topics: readonly string[],
    watch: TopicWatch,
    events: MembershipEvents<H>,
    work?: WorkQueue,
  ) {
    this.#settings = settings;
    this.#work = work;
    this.#topics = topics;
    this.#watch = watch;
    this.#events = events;
    this.#tables = new GroupTables(settings.schema, settings.group, settings.ephemeral);
  }

  /** What keeps the member from being heard, while something does. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Whether the lease runs, so that what this member owns is its own. */
  get isTrusted(): boolean {
    return performance.now() < this.#trustedUntil;
  }

  /** Joins the group. Throws what keeps the member from it. */
  async start(): Promise<void> {
    try {
      await this.#inTime((session) => session.assertUsable(this.#settings));
      await this.#askLog();
      await this.#inTime((session) => this.#sync(session));
    } catch (error) {
      this.#closeSession();
      clearTimeout(this.#fence);
      throw error;
    }
    this.#loop = this.#run();
  }

  /** What is stored can be handled without the log: it is asked again with each heartbeat. */
  async #askLog(): Promise<void> {
    try {
      await this.#watch.ask(true);
    } catch (error) {
      const { inbox, group, memberId, logger } = this.#settings;
      if (inbox === undefined || !isTransient(error)) throw error;
      logger.warn(
        { group, memberId, error: messageOf(error) },
        'The log does not answer: only what is stored is handled',
      );
    }
  }

  /** Lets the next heartbeat come at once. */
  wake(): void {
    this.#wake.notify();
  }

  /** Something that this member has parked will be due after this time: the owners of its partitions are told. */
  expectDue(ms: number): void {
    this.#dueMs = Math.min(ms, this.#dueMs ?? ms);
    this.wake();
  }

  /** Another client seems to lead elsewhere: lets the next heartbeat come at once, over a new connection. */
  reconnect(): void {
    this.#closeSession();
    this.wake();
  }

  /** From now on every partition is to go to others, each as soon as nothing of it runs; those of a static member are kept. */
  retire(): void {
    this.#isLeaving = true;
    if (this.#settings.staticLeaseMs === undefined) this.#topics = [];
    this.wake();
  }

  /** Leaves the group: the others can take this member's partitions at once. Nothing may run any more. Never throws. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#loop;
    clearTimeout(this.#fence);
    try {
      if (!this.#isFenced) await this.#inTime((session) => this.#leave(session));
    } catch (error) {
      const { group, memberId, logger } = this.#settings;
      logger.warn({ group, memberId, error: messageOf(error) }, 'Could not leave the group; the lease will run out');
    } finally {
      this.#trustedUntil = Number.NEGATIVE_INFINITY;
      this.#closeSession();
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    for (;;) {
      await this.#wake.wait(this.#waitMs(), signal);
      if (signal.aborted) return;
      this.#watch.refresh(() => {
        this.#events.topicsChanged();
        this.wake();
      });
      try {
        await this.#inTime((session) => this.#sync(session));
      } catch (error) {
        this.#fail(error);
        if (isTailraceError(error, 'MEMBER_FENCED')) {
          this.#giveUp();
          return;
        }
      }
    }
  }

  #waitMs(): number {
    const { heartbeatMs, cursorIntervalMs } = this.#settings;
    const regularMs = Math.min(heartbeatMs, cursorIntervalMs);
    if (this.#failures > 0) return Math.min(regularMs, backoffMs(this.#failures));
    return this.#isTakeOpen ? Math.min(regularMs, RETAKE_MS) : regularMs;
  }

  #fail(error: unknown): void {
    if (this.#stopped.signal.aborted) return;
    this.#failures += 1;
    this.#problem = messageOf(error);
    this.#closeSession();
    const { group, memberId, logger } = this.#settings;
    const level = isTailraceError(error) && !error.retryable ? 'error' : 'warn';
    logger[level]({ group, memberId, error: messageOf(error), failures: this.#failures }, 'A heartbeat failed');
  }

  /** A later process is this member: everything is its own, and this one is not heard any more. */
  #giveUp(): void {
    this.#isFenced = true;
    this.#trustedUntil = Number.NEGATIVE_INFINITY;
    clearTimeout(this.#fence);
    this.#loseHoldings();
  }

  #loseHoldings(): void {
    for (const holding of this.#events.holdings()) this.#events.lost(holding);
    this.#work?.loseAll();
  }

  /** Runs `action` on the session, which is opened if need be and closed if it does not answer for a whole lease. */
  async #inTime(action: (session: GroupSession) => Promise<void>): Promise<void> {
    const session = this.#session ?? (await this.#openSession());
    const giveUp = setTimeout(() => session.close(), this.#settings.leaseMs);
    try {
      await action(session);
    } finally {
      clearTimeout(giveUp);
    }
  }

  async #openSession(): Promise<GroupSession> {
    const session = await GroupSession.open(
      this.#settings,
      () => this.wake(),
      (payload) => {
        const dueMs = this.#tables.dueAfter(payload);
        if (dueMs !== undefined) this.#events.dueAfter(dueMs);
        else if (this.#tables.isOfParked(payload)) this.#events.parkedChanged();
        else if (this.#tables.wakes(this.#settings.memberId, payload)) this.wake();
      },
    );
    this.#session = session;
    return session;
  }

  #closeSession(): void {
    this.#session?.close();
    this.#session = undefined;
  }

  /** One heartbeat; another one if the log is to be asked first where it leads to now. */
  async #sync({ client }: GroupSession): Promise<void> {
    if (await this.#syncOnce(client)) return;
    await this.#watch.askAnew();
    if (!(await this.#syncOnce(client))) throw elsewhere();
  }

  /**
   * What it changed is told only after the commit. False, with nothing done, while what is known of the log is not of where
   * it leads to, or not of where the database is.
   */
  async #syncOnce(client: pg.PoolClient): Promise<boolean> {
    const { memberId, leaseMs, staticLeaseMs, canary } = this.#settings;
    const startedAt = performance.now();
    const group = await this.#tables.begin(client, this.#idleMs);
    const origin = await this.#originOf(client);
    this.#loseWhatIsNotOf(origin);
    this.#isShared ??= isShared(origin);
    if (!fits(origin, this.#isShared) || !this.#watch.isOf(origin.log)) {
      await client.query('rollback');
      return false;
    }
    const { facts } = this.#watch;
    const holdings = this.#events.holdings();
    const joined = await this.#join(client, origin.database);
    const members = await this.#tables.heartbeat(
      client,
      { memberId, topics: this.#topics, incarnation: joined.incarnation, staticLeaseMs, canary, host: hostname() },
      leaseMs,
    );
    await this.#assertMode(client, group, members);
    const rows = await this.#knownRows(client, facts, group, origin);
    const { canaryPercent, heldFor } = group;
    const isHeld = heldFor !== undefined;
    const plan = planSync({ memberId, isLeaving: this.#isLeaving, isHeld, canaryPercent, members, rows, holdings });
    const extended = await this.#storePlaces(client, holdings, plan, rows);
    await this.#tables.setWanted(client, plan.wanted);
    const isAbandoned = isAbandonedIn(plan, rows);
    await this.#tables.release(client, plan.release, isAbandoned);
    const take = await this.#notHeldUp(client, plan.take, rows);
    const taken = await this.#tables.take(client, memberId, take, isAbandoned);
    const isEnding = isHeld || this.#isLeaving;
    const work = await this.#work?.sync(client, { members, rows, origin, isEnding });
    const dueMs = this.#dueMs;
    if (dueMs !== undefined) await this.#tables.tellDue(client, dueMs);
    await this.#tables.wake(client, [...new Set([...plan.wake, ...(work?.wake ?? [])])]);
    await client.query('commit');
    if (this.#dueMs === dueMs) this.#dueMs = undefined;
    this.#joined = joined;
    this.#remembered = this.#settings.ephemeral ? { origin, places: rows } : undefined;
    this.#tellHeld(heldFor);
    for (const { holding, reach } of extended) holding.mayReach(reach);
    if (extended.length > 0) this.#events.reachExtended();
    this.#tell(plan, taken, origin, rows);
    this.#trustUntil(startedAt + leaseMs);
    work?.tell();
    this.#isTakeOpen = taken.length < take.length || work?.isTakeOpen === true;
    return true;
  }

  /** A group has one mode: a member that is alone chooses it. */
  async #assertMode(client: pg.PoolClient, group: GroupState, members: readonly AssignorMember[]): Promise<void> {
    const { mode, memberId, group: name } = this.#settings;
    if (group.mode === mode) return;
    const others = members.filter((member) => member.memberId !== memberId);
    if (others.length > 0) throw otherMode(name, mode, group.mode, others.length);
    await this.#tables.setMode(client, mode);
  }

  /** Counted once, and once more on another cluster or timeline, where the count may be of before. */
  async #join(client: pg.PoolClient, database: Cluster): Promise<Joined> {
    if (this.#joined !== undefined && isSameCluster(this.#joined.database, database)) return this.#joined;
    return { incarnation: await this.#tables.join(client), database };
  }

  /** What is to be taken, without partitions that were added and to which a key has moved that is blocked elsewhere. */
  async #notHeldUp(
    client: pg.PoolClient,
    take: readonly CursorRow[],
    rows: readonly CursorRow[],
  ): Promise<readonly CursorRow[]> {
    const added = addedAmong(take);
    if (added.length === 0) return take;
    const waiting = heldUp(added, rows, await this.#tables.blockedKeys(client, added));
    return take.filter((row) => !waiting.includes(row));
  }

  /** Where this transaction is, and the log. */
  async #originOf(client: pg.PoolClient): Promise<Origin> {
    const database = await readCluster(client);
    if (database === undefined) throw elsewhere(); // a hot standby
    return { database, log: this.#settings.log.cluster };
  }

  /** Offsets and epochs of another history say nothing here, even where they look the same. */
  #loseWhatIsNotOf(origin: Origin): void {
    this.#work?.loseAll(origin);
    const holdings = this.#events.holdings().filter((holding) => !isSameOrigin(holding.origin, origin));
    if (holdings.length === 0) return;
    const { group, memberId, logger } = this.#settings;
    logger.error({ group, memberId, code: 'WRONG_CLUSTER' }, elsewhere().message);
    for (const holding of holdings) this.#events.lost(holding);
  }

  /** A member that hangs inside its heartbeat is not to keep the group's lock for longer than the others can wait. */
  get #idleMs(): number {
    return Math.ceil(this.#settings.leaseMs / 3);
  }

  async #knownRows(
    client: pg.PoolClient,
    facts: readonly TopicFacts[],
    { heldFor, isNew }: GroupState,
    origin: Origin,
  ): Promise<CursorRow[]> {
    let rows = await this.#tables.cursors(client);
    if (heldFor !== undefined) return rows; // a group that takes over from another one gets its places from that
    if (isNew && this.#remembered !== undefined) {
      await this.#tables.addCursors(client, this.#rememberedPlaces(origin));
      rows = await this.#tables.cursors(client);
    }
    const missing = missingPlaces(facts, rows);
    if (missing.length > 0) {
      await this.#tables.addCursors(client, missing);
      rows = await this.#tables.cursors(client);
    }
    this.#watch.settle(new Set(rows.map(({ topic }) => topic)));
    return rows;
  }

  /** A group that was removed while its process slept goes on where it was. */
  #rememberedPlaces(origin: Origin): readonly PlaceInPartition[] {
    const remembered = this.#remembered;
    return remembered !== undefined && isSameOrigin(remembered.origin, origin) ? remembered.places : [];
  }

  #tellHeld(heldFor: string | undefined): void {
    if (heldFor === this.#heldFor) return;
    this.#heldFor = heldFor;
    const { group, memberId, logger } = this.#settings;
    if (heldFor === undefined) logger.info({ group, memberId }, 'The group has its partitions from now on');
    else logger.warn({ group, memberId, other: heldFor }, 'A cutover: the group has no partitions');
  }

  /** Stores how far this member has come: now and then for what it keeps, at once for what it gives up. */
  async #storePlaces(
    client: pg.PoolClient,
    holdings: readonly H[],
    plan: SyncPlan<H>,
    rows: readonly CursorRow[],
  ): Promise<{ readonly holding: H; readonly reach: bigint }[]> {
    const isDue = performance.now() >= this.#placesDueAt;
    const stored = new Map(rows.map((row) => [partitionName(row), row.nextOffset]));
    const places = holdings.filter(
      (holding) =>
        !plan.lost.includes(holding) &&
        (holding.isNearReach ||
          ((isDue || holding.revoking) &&
            holding.nextOffset > (stored.get(partitionName(holding)) ?? holding.nextOffset))),
    );
    const reaches = places.map((holding) => ({ holding, reach: holding.wantedReach }));
    await this.#tables.advance(client, places);
    if (isDue) this.#placesDueAt = performance.now() + this.#settings.cursorIntervalMs;
    return reaches;
  }

  #tell(plan: SyncPlan<H>, taken: readonly TakenPartition[], origin: Origin, rows: readonly CursorRow[]): void {
    for (const holding of plan.lost) this.#events.lost(holding, wasMoved(holding, rows));
    for (const holding of plan.released) this.#events.released(holding);
    for (const holding of plan.revoke) this.#events.revoked(holding);
    for (const partition of taken) this.#events.taken(partition, origin);
  }

  /** The lease runs until `deadline`, on the monotonic clock. If no later heartbeat succeeds, everything is lost then. */
  #trustUntil(deadline: number): void {
    this.#trustedUntil = deadline;
    this.#failures = 0;
    this.#problem = undefined;
    clearTimeout(this.#fence);
    this.#fence = setTimeout(() => this.#loseAll(), Math.max(0, deadline - performance.now()));
  }

  #loseAll(): void {
    const { group, memberId, logger } = this.#settings;
    logger.error({ group, memberId }, 'The lease ran out without a heartbeat: everything under way is undone');
    this.#loseHoldings();
  }

  async #leave({ client }: GroupSession): Promise<void> {
    const { memberId, ephemeral } = this.#settings;
    await this.#tables.begin(client, this.#idleMs);
    const origin = await this.#originOf(client);
    this.#loseWhatIsNotOf(origin);
    const holdings = this.#events.holdings();
    await this.#tables.advance(client, holdings);
    const work = await this.#work?.giveUp(client, { members: [], rows: await this.#tables.cursors(client), origin });
    await this.#tables.removeMember(client, memberId, this.#joined?.incarnation);
    if (ephemeral) await this.#tables.removeEphemeral(client);
    await this.#tables.wake(client, 'all');
    await client.query('commit');
    for (const holding of holdings) this.#events.released(holding);
    work?.tell();
  }
}

/** Where the owner that a row names has not given the partition up: it died, or had to let go. */
function isAbandonedIn<H extends Holding>(
  { released }: SyncPlan<H>,
  rows: readonly CursorRow[],
): (place: { topic: string; partition: number }) => boolean {
  const inOrder = new Set(released.map(partitionName));
  const owned = rows.filter(({ owner }) => owner !== null).map(partitionName);
  const abandoned = new Set(owned.filter((name) => !inOrder.has(name)));
  return (place) => abandoned.has(partitionName(place));
}

function otherMode(group: string, mode: ConsumerMode, found: ConsumerMode, members: number): TailraceError {
  return new TailraceError(
    'GROUP_IN_USE',
    `The group ${group} has ${members} members with mode: '${found}', and this consumer has mode: '${mode}'. A group has one mode. Stop them first, or give this consumer the same mode or a group of its own.`,
    { details: { group, mode, found, members } },
  );
}
