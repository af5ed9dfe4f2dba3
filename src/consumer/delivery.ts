import type { LogRecord } from '../broker/record.ts';
import { decodePayload } from '../message/decode.ts';
import type { Message } from '../message/message.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import type { RegisteredHandler } from './handlers.ts';
import type { LaneRules } from './lanes.ts';
import type { ParkNote } from './park-note.ts';
import type { FirstFailure, ParkedRow } from './parked-messages.ts';

/**
 * What says that a record is done, in the transaction that does it: a row of its own, the group's place, or nothing,
 * where that was said before.
 */
export type ClaimKind = 'row' | 'cursor' | 'nothing';

/** What is to be done with a record. `alone`: never again in a batch with others. */
export type Task =
  | { readonly todo: 'handle'; readonly handler: RegisteredHandler; readonly alone: boolean; readonly by?: undefined }
  | { readonly todo: 'park'; readonly note: ParkNote; readonly by?: ClaimKind };

/** What is to say that a record is done. */
export function claimKindOf(task: Task): ClaimKind {
  if (task.todo === 'park') return task.by ?? 'row';
  return task.handler.movesCursor ? 'cursor' : 'row';
}

/** That a record is set aside: what says so is what would have said that it is handled. */
export function parkTask(task: Task, note: ParkNote): Task {
  return { todo: 'park', note, by: claimKindOf(task) };
}

/** A record on its way through this member. */
export interface Delivery {
  readonly partition: AssignedPartition;
  readonly record: LogRecord;
  /** About how much memory it takes. */
  readonly bytes: number;
  task: Task;
  /** Where it comes from, if not from the log. */
  readonly parked?: ParkedRow;
  /** The first failure of it that this process has seen. */
  firstFailure: FirstFailure | undefined;
  /** Whether a former owner had begun it when it died. */
  wasBegun?: boolean;
  /** Attempts that are held to have ended with their process; set once one has been recorded here, of a suspect. */
  crashes?: number;
}

/** A parked row: the first of a key, or one that blocks nobody. */
export type LookTarget = { readonly key: string } | { readonly key: string | null; readonly offset: bigint };

/** Is to find out, in its lane, what can be done with a parked row. */
export interface Look {
  readonly partition: AssignedPartition;
  readonly target: LookTarget;
}

/** What stands in lanes. */
export type LaneItem = Delivery | Look;

export function isLook(item: LaneItem): item is Look {
  return 'target' in item;
}

/** Attempts at a delivery that failed before this member took it in hand. */
export function priorAttempts({ parked, crashes = 0 }: Delivery): number {
  return (parked?.attempts ?? 0) + crashes;
}

/** Whether a former owner may have died of a record, and no attempt at it is recorded yet. */
export function isSuspect(delivery: Delivery, lane: string | undefined): boolean {
  const { partition, record, parked, task, crashes } = delivery;
  if (task.todo !== 'handle' || task.handler.movesCursor || crashes !== undefined) return false;
  return parked?.isSuspect ?? (delivery.wasBegun === true || partition.suspects.has(record.offset, lane));
}

/** Whether a suspect is known to have been begun when a process died: it runs when no other such one does. */
export function wasBegun({ parked, wasBegun: wasRecorded }: Delivery): boolean {
  return parked !== undefined || wasRecorded === true;
}

/** Whether a record stands in the order of its key: one that was to be delivered later has left it. */
export function isInLine({ partition, record, parked }: Delivery): boolean {
  return parked?.blocks ?? (partition.lease === undefined && record.key !== null && record.deliverAt === undefined);
}

/** How many records line up at once behind a parked one. */
const MOST_LINED_UP = 200;

const FIXED_BYTES = 500;

/** About how much memory a record takes. */
export function sizeOf({ payload, payloadBytes, key }: LogRecord): number {
  return FIXED_BYTES + (payload?.length ?? payloadBytes?.length ?? 0) + (key?.length ?? 0);
}

/** The message of a record, its payload decoded anew. Throws `INVALID_PAYLOAD`. */
export function messageOfRecord(record: LogRecord): Message {
  return {
    id: record.messageId,
    kind: record.kind,
    type: record.type,
    topic: record.topic,
    key: record.key,
    headers: record.headers,
    payload: decodePayload(undefined, record),
    occurredAt: record.occurredAt,
    ...(record.expiresAt !== undefined && { expiresAt: record.expiresAt }),
    ...(record.deliverAt !== undefined && { deliverAt: record.deliverAt }),
  };
}

/**
 * A key is a lane of its partition; a serial topic's partitions have one lane each. Records that line up go together, and
 * never with others.
 */
export function deliveryLanes(
  concurrency: number,
  isSerial: (topic: string) => boolean,
  largestUnit = Number.POSITIVE_INFINITY,
): LaneRules<LaneItem, AssignedPartition> {
  return {
    concurrency,
    group: ({ partition }) => partition,
    lane: laneOf(isSerial),
    joins: (last, next, size) => {
      if (isLook(last) || isLook(next)) return false;
      const [a, b] = [last.task, next.task];
      if (a.todo !== 'handle' || b.todo !== 'handle' || last.parked !== undefined || next.parked !== undefined)
        return false;
      const linesUp = isLinedUp(last);
      if (linesUp !== isLinedUp(next)) return false;
      if (linesUp) return size < MOST_LINED_UP;
      return a.handler === b.handler && !a.alone && !b.alone && size < Math.min(a.handler.maxRecords, largestUnit);
    },
  };
}

/** The lane of an item: its key, or one for all of a serial topic's partition. */
export function laneOf(isSerial: (topic: string) => boolean): (item: LaneItem) => string | undefined {
  return (item) => {
    if (isSerial(item.partition.topic)) return 'serial';
    if (item.partition.lease !== undefined) return undefined; // a work queue has no order
    return (isLook(item) ? item.target.key : item.record.key) ?? undefined;
  };
}

/** Whether a record is to line up behind the parked ones of its key. */
export function isLinedUp({ partition, record, parked, task }: Delivery): boolean {
  return parked === undefined && task.todo === 'handle' && partition.parked.isBlocked(record.key);
}
