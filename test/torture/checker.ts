import type { Step } from './tables.ts';

/**
 * What must hold, by the names of the list in README.md. I1 nothing lost, I2 no effect twice, I3 nothing invented, I4 order
 * per key and offsets without gaps, I5 the slot behind the durable place, I6 no stale epoch, I7 memory, I8 fails loudly,
 * I9 progress and drain, I10 few duplicates, I11 the database stays safe, I12 attempts outlive the process.
 */
export type Invariant = 'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'I6' | 'I7' | 'I8' | 'I9' | 'I10' | 'I11' | 'I12';

/** Where messages must be found, in the order in which they are there: the log, or the effects of a group. */
export interface Place {
  readonly name: string;
  readonly steps: readonly Step[];
}

/** An entry of the log: `count` offsets of a partition from `base` on. In the order of the bases. */
export interface Entry {
  readonly partition: number;
  readonly base: number;
  readonly count: number;
}

/** An append, as the database saw it. In the order of their numbers. */
export interface BatchFact {
  readonly seq: number;
  readonly epoch: number;
  /** Of the lease at that moment. */
  readonly leaseEpoch: number | undefined;
}

/** When an epoch began, in milliseconds of the machine's clock. */
export interface LeaseFact {
  readonly epoch: number;
  readonly holder: string;
  readonly atMs: number;
}

/** An append that was refused, or whose fate its relay did not learn. `trusted`: the relay held its lease to be good. */
export interface RefusedAppend {
  readonly holder: string;
  readonly trusted: boolean;
  readonly atMs: number;
  readonly code: string;
}

/** An effect that a member committed in a partition that had another owner by then. */
export interface StaleEffect {
  readonly group: string;
  readonly id: number;
  readonly member: string;
  readonly owner: string;
}

/** A message that ended processes before it was handled. */
export interface PoisonFact {
  readonly id: number;
  readonly deaths: number;
  /** The number of the attempt that it was handled in. */
  readonly attempt: number;
}

/** How a server fared at a moment. */
export interface ServerSample {
  /** By the slot. */
  readonly retainedWalBytes: number;
  /** The age of the oldest transaction of a relay, as far as no fault held it up. */
  readonly transactionMs: number;
  /** How long the server took to say so: on a busy machine everything takes longer. */
  readonly answerMs: number;
  /** Whose transaction that is, and what it does. */
  readonly oldest?: string;
}

/** The slot was acknowledged up to `confirmed` while the log was durable up to `durable` only. */
export interface EarlyAcknowledgement {
  readonly confirmed: string;
  readonly durable: string;
}

/** Ranges of ids, both ends included, by what their writer learned of their transactions. */
export interface Attempts {
  readonly ok: readonly (readonly [number, number])[];
  readonly fail: readonly (readonly [number, number])[];
}

/** All that a run has gathered. */
export interface Evidence {
  /** What committed. */
  readonly truth: readonly Step[];
  readonly attempts: Attempts;
  readonly log: Place;
  readonly effects: readonly Place[];
  readonly entries: readonly Entry[];
  readonly batches: readonly BatchFact[];
  readonly leases: readonly LeaseFact[];
  readonly refused: readonly RefusedAppend[];
  readonly staleEffects: readonly StaleEffect[];
  readonly poison: readonly PoisonFact[];
  readonly earlyAcknowledgements: readonly EarlyAcknowledgement[];
  readonly memoryMiB: number;
  readonly memoryLimitMiB: number;
  readonly drained: boolean;
  /** Processes that ended, or relays that halted, without a reason in the plan. */
  readonly collapses: readonly string[];
  /** Faults after which nothing moved any more, or during which it had to and did not. */
  readonly stalls: readonly string[];
  readonly server: readonly ServerSample[];
  readonly retainedWalLimitBytes: number;
  /** Effects that were undone, and done again. */
  readonly redelivered: number;
  /** What can have been in flight, times how often it can have been interrupted. */
  readonly redeliveredLimit: number;
  /** Where the database was in danger: transactions of a relay left open, WAL held back. */
  readonly dangers: readonly string[];
  /** Messages that were handled, and whose transactions a failover then undid. */
  readonly phantoms: readonly number[];
  /**
   * Ranges of ids, both ends included, of transactions that a failover may have undone. In a handlers' database that is not the
   * log's their effects stay.
   */
  readonly undone: readonly (readonly [number, number])[];
  /** Those of the phantoms that the failover must not have had: the standby kept the slot. */
  readonly forbiddenPhantoms: readonly number[];
  /** Keys of which no order is promised. */
  readonly unorderedKeys: ReadonlySet<string>;
  /** Keys whose messages go to a topic that no group reads. */
  readonly unreadKeys: ReadonlySet<string>;
}

/** One broken promise, with an example. */
export interface Breach {
  readonly invariant: Invariant;
  readonly what: string;
}

/** What the evidence says. The counts are sums over the log and all groups. */
export interface Verdict {
  readonly commits: number;
  /** Committed messages that a place does not hold. */
  readonly lost: number;
  /** Records and effects of messages that were never committed. */
  readonly invented: number;
  /** Records and effects beyond the first of their message. */
  readonly doubled: number;
  /** Records and effects that come after a later one of their key; offsets that a partition leaves out or gives twice. */
  readonly reordered: number;
  /** Of the lost: those that are in the log, and that a group did not handle. */
  readonly unseen: number;
  readonly staleWritesAttempted: number;
  readonly staleWritesAccepted: number;
  readonly breaches: readonly Breach[];
  /** Why the truth cannot be trusted; empty if it can. */
  readonly doubts: readonly string[];
}

/** Holds everything against the truth. Pure: what it says depends on the evidence alone. */
export function check(evidence: Evidence): Verdict {
  const truth = new Map(evidence.truth.map((step) => [step.id, step]));
  const log = judge(evidence.log, truth, evidence.unorderedKeys, () => false);
  const read = new Map([...truth].filter(([, { k }]) => !evidence.unreadKeys.has(k)));
  const effects = evidence.effects.map((place) => judge(place, read, evidence.unorderedKeys, mayBeUndone(evidence)));
  const places = [log, ...effects];
  const brokenOffsets = judgeOffsets(evidence.entries);
  const stale = acceptedStaleWrites(evidence.batches);
  const breaches: Breach[] = [
    ...places.flatMap(({ breaches: found }) => found),
    ...brokenOffsets.map((what): Breach => ({ invariant: 'I4', what })),
    ...evidence.earlyAcknowledgements.slice(0, EXAMPLES).map(({ confirmed, durable }): Breach => ({
      invariant: 'I5',
      what: `the slot was acknowledged up to ${confirmed} while the log was durable up to ${durable}`,
    })),
    ...evidence.forbiddenPhantoms.slice(0, EXAMPLES).map((id): Breach => ({
      invariant: 'I3',
      what: `message ${id} was handled, and the failover to a standby with its slot undid it`,
    })),
    ...stale.map((what): Breach => ({ invariant: 'I6', what })),
    ...evidence.staleEffects.slice(0, EXAMPLES).map(({ group, id, member, owner }): Breach => ({
      invariant: 'I6',
      what: `group ${group}: ${member} committed the effect of message ${id} in a partition of ${owner}`,
    })),
    ...judgePoison(evidence.poison),
    ...judgeTheRest(evidence),
  ];
  const logIds = new Set(evidence.log.steps.map(({ id }) => id));
  return {
    commits: evidence.truth.length,
    lost: sum(places, ({ lost }) => lost.length),
    invented: sum(places, ({ invented }) => invented),
    doubled: sum(places, ({ doubled }) => doubled),
    reordered: sum(places, ({ reordered }) => reordered) + brokenOffsets.length,
    unseen: sum(effects, ({ lost }) => lost.filter((id) => logIds.has(id)).length),
    staleWritesAttempted: countStaleAttempts(evidence.refused, evidence.leases) + stale.length,
    staleWritesAccepted: stale.length,
    breaches,
    doubts: doubtsOf(evidence.truth, truth, evidence.attempts),
  };
}

interface PlaceVerdict {
  readonly lost: readonly number[];
  readonly invented: number;
  readonly doubled: number;
  readonly reordered: number;
  readonly breaches: readonly Breach[];
}

/**
 * For the order only the first of each message counts: a repetition is doubled, not reordered. What was undone may be there
 * once, and its number counts for nothing: another message of its key has it too.
 */
function judge(
  { name, steps }: Place,
  truth: ReadonlyMap<number, Step>,
  unordered: ReadonlySet<string>,
  mayBeGone: (id: number) => boolean,
): PlaceVerdict {
  const seen = new Set<number>();
  const highest = new Map<string, number>();
  const breaches = new BreachList(name);
  for (const step of steps) {
    const known = truth.get(step.id);
    const wasUndone = known === undefined && mayBeGone(step.id);
    if (wasUndone && !seen.has(step.id)) {
      seen.add(step.id);
      continue;
    }
    if (!wasUndone && (known?.k !== step.k || known.n !== step.n)) {
      breaches.add('I3', 'invented', `${describe(step)} was never committed`);
      continue;
    }
    if (seen.has(step.id)) {
      breaches.add('I2', 'doubled', `${describe(step)} is there again`);
      continue;
    }
    seen.add(step.id);
    const before = highest.get(step.k) ?? 0;
    if (step.n < before && !unordered.has(step.k)) {
      breaches.add('I4', 'reordered', `${describe(step)} comes after number ${before}`);
    }
    highest.set(step.k, Math.max(before, step.n));
  }
  const lost = [...truth.values()].filter(({ id }) => !seen.has(id));
  for (const step of lost) breaches.add('I1', 'lost', `${describe(step)} is not there`);
  return {
    lost: lost.map(({ id }) => id),
    invented: breaches.count('invented'),
    doubled: breaches.count('doubled'),
    reordered: breaches.count('reordered'),
    breaches: breaches.list,
  };
}

/** Whether a message may have been committed, and undone by a failover: what was rolled back never was. */
function mayBeUndone({ undone, attempts }: Evidence): (id: number) => boolean {
  const isIn = (id: number, ranges: Evidence['undone']): boolean =>
    ranges.some(([first, last]) => id >= first && id <= last);
  return (id) => isIn(id, undone) && !isIn(id, attempts.fail);
}

/** Counts all, and keeps the first few of a kind as examples. */
class BreachList {
  readonly list: Breach[] = [];
  readonly #place: string;
  readonly #counts = new Map<string, number>();

  constructor(place: string) {
    this.#place = place;
  }

  add(invariant: Invariant, kind: string, what: string): void {
    const count = this.count(kind) + 1;
    this.#counts.set(kind, count);
    if (count <= EXAMPLES) this.list.push({ invariant, what: `${this.#place}: ${what}` });
  }

  count(kind: string): number {
    return this.#counts.get(kind) ?? 0;
  }
}

const EXAMPLES = 5;

function describe({ id, k, n }: Step): string {
  return `message ${id} (${k}, number ${n})`;
}

function judgeOffsets(entries: readonly Entry[]): string[] {
  const ends = new Map<number, number>();
  const broken: string[] = [];
  for (const { partition, base, count } of entries) {
    const end = ends.get(partition) ?? 0;
    if (base !== end) broken.push(`log: partition ${partition} goes on at offset ${base}, expected ${end}`);
    ends.set(partition, base + count);
  }
  return broken;
}

/** An append under another epoch than the lease's, or after one of a later epoch. */
function acceptedStaleWrites(batches: readonly BatchFact[]): string[] {
  let highest = 0;
  const stale: string[] = [];
  for (const { seq, epoch, leaseEpoch } of batches) {
    if (leaseEpoch !== undefined && leaseEpoch !== epoch) {
      stale.push(`append ${seq} of epoch ${epoch} was accepted while the lease was of epoch ${leaseEpoch}`);
    } else if (epoch < highest)
      stale.push(`append ${seq} of epoch ${epoch} was accepted after one of epoch ${highest}`);
    highest = Math.max(highest, epoch);
  }
  return stale;
}

/**
 * Appends that their relay sent, trusting its lease, when another relay had taken it already: only the fence in the database
 * was left to stop them.
 */
function countStaleAttempts(refused: readonly RefusedAppend[], leases: readonly LeaseFact[]): number {
  return refused.filter(({ holder, trusted, atMs, code }) => {
    const taken = leases.findLast((lease) => lease.atMs <= atMs);
    return trusted && code === 'LEASE_LOST' && taken !== undefined && taken.holder !== holder;
  }).length;
}

function judgeTheRest(evidence: Evidence): Breach[] {
  const { memoryMiB, memoryLimitMiB, drained, collapses, stalls, dangers } = evidence;
  const { server, retainedWalLimitBytes, redelivered, redeliveredLimit } = evidence;
  const breaches: Breach[] = [];
  if (memoryMiB > memoryLimitMiB) {
    breaches.push({ invariant: 'I7', what: `a relay had ${Math.round(memoryMiB)} MiB, at most ${memoryLimitMiB}` });
  }
  for (const what of collapses) breaches.push({ invariant: 'I8', what });
  for (const what of stalls) breaches.push({ invariant: 'I9', what });
  if (!drained) breaches.push({ invariant: 'I9', what: 'not everything had arrived when nothing moved any more' });
  for (const what of dangers) breaches.push({ invariant: 'I11', what });
  if (redelivered > redeliveredLimit) {
    breaches.push({ invariant: 'I10', what: `${redelivered} effects were done again, at most ${redeliveredLimit}` });
  }
  return [...breaches, ...judgeServer(server, retainedWalLimitBytes)];
}

/** The first two owners that die leave no word of a message, and the third one that it was among what was begun. */
const UNCOUNTED_DEATHS = 3;

function judgePoison(poison: readonly PoisonFact[]): Breach[] {
  return poison
    .filter(({ deaths, attempt }) => attempt < 1 + deaths - UNCOUNTED_DEATHS)
    .map(({ id, deaths, attempt }): Breach => ({
      invariant: 'I12',
      what: `message ${id} ended ${deaths} processes and was handled in attempt ${attempt}`,
    }));
}

/** How old a transaction of a relay may become, and how many times longer that is when the server answers late. */
const OLDEST_TRANSACTION_MS = 5_000;
const ANSWERS = 20;

function judgeServer(samples: readonly ServerSample[], limitBytes: number): Breach[] {
  const breaches: Breach[] = [];
  const retained = samples.reduce((most, { retainedWalBytes }) => Math.max(most, retainedWalBytes), 0);
  if (retained > limitBytes) {
    breaches.push({ invariant: 'I11', what: `the slot held ${retained} bytes of WAL back, at most ${limitBytes}` });
  }
  const old = samples.find(({ transactionMs, answerMs }) => transactionMs > OLDEST_TRANSACTION_MS + ANSWERS * answerMs);
  if (old !== undefined) {
    const what = `a transaction of a relay was open for ${Math.round(old.transactionMs)} ms`;
    const answer = `the server answered within ${Math.round(old.answerMs)} ms`;
    breaches.push({ invariant: 'I11', what: `${what}, and ${answer}: ${old.oldest ?? 'it is not known which'}` });
  }
  return breaches;
}

/** The oracle is checked too: what its writers know, and that numbers are dense. */
function doubtsOf(steps: readonly Step[], truth: ReadonlyMap<number, Step>, { ok, fail }: Attempts): string[] {
  const doubts: string[] = [];
  const notThere = ok.filter(([first, last]) => !truth.has(first) || !truth.has(last));
  if (notThere.length > 0) doubts.push(`${notThere.length} transactions whose COMMIT was answered are not there`);
  const there = fail.filter(([first, last]) => truth.has(first) || truth.has(last));
  if (there.length > 0) doubts.push(`${there.length} transactions that were rolled back are there`);
  const counts = new Map<string, { count: number; highest: number }>();
  for (const { k, n } of steps) {
    const { count, highest } = counts.get(k) ?? { count: 0, highest: 0 };
    counts.set(k, { count: count + 1, highest: Math.max(highest, n) });
  }
  for (const [k, { count, highest }] of counts) {
    if (count !== highest) doubts.push(`the numbers of ${k} end at ${highest}, and there are ${count}`);
  }
  return doubts;
}

function sum<Item>(items: readonly Item[], of: (item: Item) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
