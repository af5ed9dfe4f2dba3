import type { LogRecord } from '../broker/record.ts';
import type { Tracing } from '../telemetry/tracing.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import { Attempts } from './attempt.ts';
import { Dispatcher } from './dispatcher.ts';
import { EndWatch } from './end-watch.ts';
import { Fetcher, type FetchLimits } from './fetcher.ts';
import { HandlerTransactions } from './handler-transaction.ts';
import type { HandlerRegistry } from './handlers.ts';
import type { Holdings } from './holdings.ts';
import { Inbox } from './inbox.ts';
import { Membership } from './membership.ts';
import type { ConsumerSettings } from './options.ts';
import { ParkedFeeder, SAFETY_MS } from './parked-feeder.ts';
import { ParkedMessages, type ParkedPlace } from './parked-messages.ts';
import { planRangeFetch } from './prefetch.ts';
import { partitionName } from './sync-plan.ts';
import { TopicWatch } from './topic-watch.ts';
import { WorkQueue } from './work-queue.ts';
import type { WorkRange } from './work-range.ts';

/** What is asked of whatever reads. */
type PartitionFetcher = Pick<
  Fetcher<AssignedPartition>,
  'start' | 'stop' | 'freed' | 'resume' | 'reassigned' | 'lost' | 'problem'
>;

/** What a consumer is made of once it starts. */
export interface Parts {
  readonly membership: Membership<AssignedPartition>;
  readonly transactions: HandlerTransactions;
  readonly dispatcher: Dispatcher;
  readonly fetcher: PartitionFetcher;
  readonly inbox: Inbox;
  readonly feeder: ParkedFeeder;
  /** Of a work queue. */
  readonly work: WorkQueue | undefined;
  /** Idle unless this is a work queue. */
  readonly ends: EndWatch;
}

/** Makes what a consumer consists of, and ties it together. Nothing of it runs yet. */
export function buildParts(
  settings: ConsumerSettings,
  registry: HandlerRegistry,
  tracing: Tracing | undefined,
  holdings: Holdings,
): Parts {
  const { topics } = registry;
  const watch = new TopicWatch(settings, topics);
  const work = settings.mode === 'work-queue' ? workQueue(settings, holdings, () => parts) : undefined;
  const membership = new Membership<AssignedPartition>(
    settings,
    topics,
    watch,
    {
      holdings: () => holdings.partitions,
      taken: (taken, origin) => holdings.take(taken, origin),
      revoked: (partition) => holdings.revoke(partition),
      released: (partition) => holdings.forget(partition, 'released'),
      lost: (partition, isMoved) => holdings.lose(partition, isMoved),
      topicsChanged: () => holdings.readAnew(),
      reachExtended: () => holdings.readAnew(),
      parkedChanged: () => feeder.changed(),
      dueAfter: (ms) => feeder.expect(ms),
    },
    work,
  );
  const transactions = new HandlerTransactions(settings, {
    mayCommit: (partition) => partition.mayCommit && membership.isTrusted,
    elsewhere: () => membership.reconnect(),
  });
  const messages = new ParkedMessages(settings.schema, settings.group);
  const dispatcher: Dispatcher = new Dispatcher(
    settings,
    registry,
    {
      attempts: new Attempts(settings, transactions, messages, tracing),
      recordBegun: (partition, deliveries) => {
        const records = deliveries.map(({ record }) => record);
        return transactions.ask(partition, (client) => messages.recordBegun(client, partition, records));
      },
      countSuspect: ({ partition, record, parked }) =>
        transactions.ask(partition, async (client) =>
          parked === undefined
            ? messages.countSuspect(client, partition, record)
            : ((await messages.countCrash(client, parked)) ?? 0),
        ),
      find: ({ partition, target }) =>
        transactions.ask(partition, (client) =>
          'offset' in target
            ? messages.lookAtPlace(client, { ...placeOf(partition), offset: target.offset })
            : messages.lookAtKey(client, partition, target.key),
        ),
    },
    {
      progressed: (partition) => holdings.progressed(partition),
      lost: (partition) => holdings.lose(partition),
      dueAfter: (ms, partition) => {
        feeder.expect(ms);
        // The owner of the partition looks by itself now and then.
        if (partition.lease !== undefined && ms < SAFETY_MS) membership.expectDue(ms);
      },
    },
  );
  const feeder: ParkedFeeder = new ParkedFeeder(settings, messages, transactions, {
    partitions: () => holdings.owned,
    loaded: () => holdings.readAnew(),
    look: (partition, target) => dispatcher.look(partition, target),
  });
  const mayBegin = ({ parked, isAtReach }: AssignedPartition): boolean => parked.isLoaded && !isAtReach;
  const accept = (partition: AssignedPartition, records: readonly LogRecord[]): void => {
    dispatcher.accept(partition, records);
    if (partition.isNearReach) membership.wake();
  };
  const inbox: Inbox = new Inbox(settings, transactions, {
    partitions: () => (work === undefined ? holdings.owned : []), // a work queue reads ranges of the log
    mayBegin,
    exists: (topic) => watch.exists(topic),
    accept,
    ready: () => fetcher.reassigned(),
    lost: (partition) => holdings.lose(partition),
  });
  const fetcher: PartitionFetcher =
    work === undefined
      ? new Fetcher<AssignedPartition>(settings, {
          aim: 'fetch from the log',
          partitions: () =>
            holdings.owned.filter((each) => mayBegin(each) && inbox.isPassed(each) && watch.exists(each.topic)),
          fetch: (partitions, limits) => fetchFrom(settings, partitions, limits),
          accept,
        })
      : rangeFetcher(settings, work, dispatcher, () => membership.wake());
  const ends: EndWatch = new EndWatch(settings, {
    partitions: () =>
      holdings.owned.filter(
        (partition) =>
          partition.parked.isLoaded &&
          watch.exists(partition.topic) &&
          (work?.backlogOf(partition) ?? 0n) < MOST_KNOWN_BACKLOG,
      ),
    learned: () => membership.wake(),
  });
  const parts: Parts = { membership, transactions, dispatcher, fetcher, inbox, feeder, work, ends };
  return parts;
}

function workQueue(settings: ConsumerSettings, holdings: Holdings, parts: () => Parts): WorkQueue {
  return new WorkQueue(settings, {
    taken: () => parts().fetcher.reassigned(),
    revoked: (range) => holdings.revoke(range),
    released: (range) => holdings.forget(range, 'released'),
    lost: (range, isMoved) => holdings.forgetLost(range, isMoved),
    ends: () => parts().ends.ends,
    mayTake: () => parts().dispatcher.circuit !== 'open',
    synced: (marks) => {
      for (const partition of holdings.partitions) partition.skipTo(marks.get(partitionName(partition)) ?? 0n);
      parts().ends.changed();
    },
  });
}

/** So many records that are known and not dealt are enough: nobody looks for more. */
const MOST_KNOWN_BACKLOG = 10_000n;

/** Reads the ranges of a work queue, each to its end. */
function rangeFetcher(
  settings: ConsumerSettings,
  work: WorkQueue,
  dispatcher: Dispatcher,
  wake: () => void,
): Fetcher<WorkRange> {
  return new Fetcher<WorkRange>(settings, {
    aim: 'fetch from the log',
    partitions: () => work.ranges.filter((range) => range.state === 'owned' && !range.isFetched),
    fetch: (ranges, limits) => fetchFrom(settings, ranges, limits),
    accept: (range, records) => {
      const inRange = records.filter(({ offset }) => offset < range.to);
      dispatcher.accept(range, inRange);
      if (inRange.length < records.length) range.skipTo(range.to); // compaction has left the rest out
      if (work.wantsSync(range)) wake();
    },
    plan: planRangeFetch,
  });
}

function fetchFrom(
  { log }: ConsumerSettings,
  partitions: readonly AssignedPartition[],
  limits: FetchLimits,
): Promise<LogRecord[]> {
  return log.fetch(
    partitions.map(({ fetchPosition }) => fetchPosition),
    limits,
  );
}

/** What keeps a consumer from the group or from the log, while something does. */
export function problemOf(parts: Parts | undefined): string | undefined {
  if (parts === undefined) return undefined;
  const { membership, feeder, fetcher, inbox, ends } = parts;
  return membership.problem ?? feeder.problem ?? fetcher.problem ?? inbox.problem ?? ends.problem;
}

function placeOf({ topic, partition, generation }: AssignedPartition): Omit<ParkedPlace, 'offset'> {
  return { topic, partition, generation };
}
