import type { LogRecord } from '../broker/record.ts';
import { decodePayload } from '../message/decode.ts';
import type { Message } from '../message/message.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import type { RegisteredHandler } from './handlers.ts';
import type { LaneRules } from './lanes.ts';
import type { ParkNote } from './parked-messages.ts';

/** What is to be done with a record. `alone`: never again in a batch with others. */
export type Task =
  | { readonly todo: 'handle'; readonly handler: RegisteredHandler; readonly alone: boolean }
  | { readonly todo: 'park'; readonly note: ParkNote };

/** A record on its way through this member. */
export interface Delivery {
  readonly partition: AssignedPartition;
  readonly record: LogRecord;
  /** About how much memory it takes. */
  readonly bytes: number;
  task: Task;
}

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
  };
}

/** A key is a lane of its partition; a serial topic's partitions have one lane each. */
export function deliveryLanes(
  concurrency: number,
  isSerial: (topic: string) => boolean,
  largestUnit = Number.POSITIVE_INFINITY,
): LaneRules<Delivery, AssignedPartition> {
  return {
    concurrency,
    group: ({ partition }) => partition,
    lane: ({ record }) => (isSerial(record.topic) ? 'serial' : (record.key ?? undefined)),
    joins: (last, next, size) => {
      const [a, b] = [last.task, next.task];
      if (a.todo !== 'handle' || b.todo !== 'handle') return false;
      return a.handler === b.handler && !a.alone && !b.alone && size < Math.min(a.handler.maxRecords, largestUnit);
    },
  };
}
