import type { Headers } from '../message/message.ts';

/** A record in the hands of a consumer. */
export interface TracedRecord {
  readonly messageId: string;
  readonly offset: bigint;
  readonly headers: Headers;
}

/** What a consumer is about to do with records that it does in one transaction. */
export interface Consumption {
  /** `process`: hand them to the handler. `park`: set one aside. */
  readonly operation: 'process' | 'park';
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  /** 1 at first. */
  readonly attempt: number;
  readonly records: readonly TracedRecord[];
}

/** How it ended. */
export type ConsumptionEnd =
  { readonly ended: 'done' } | { readonly ended: 'duplicate' } | { readonly ended: 'failed'; readonly error: unknown };

/** A message that a relay has appended to the log. Times are Unix milliseconds. */
export interface AppendedMessage {
  readonly messageId: string;
  readonly headers: Headers;
  readonly topic: string;
  readonly partition: number;
  readonly startedAt: number;
  readonly endedAt: number;
}

/** Tells of a message's way in spans. */
export interface Tracing {
  /** Whether spans go anywhere. What only serves spans can be left undone while not. */
  readonly isOn: boolean;
  /**
   * Runs `write` inside a span. It is given the headers that carry the span's context on, for messages without a
   * `traceparent` of their own; none where there is no trace.
   */
  publish<Result>(
    operation: 'publish' | 'send',
    messages: readonly unknown[],
    write: (headers: Headers | undefined) => Promise<Result>,
  ): Promise<Result>;
  /**
   * Runs `work`, and all that it calls, inside a span that continues the record's trace; with several records, in a trace
   * of its own that is linked to theirs.
   */
  consume<Result>(
    consumption: Consumption,
    work: () => Promise<Result>,
    endOf: (result: Result) => ConsumptionEnd,
  ): Promise<Result>;
  /** Adds a span to the message's trace, if it has one and that is sampled. */
  appended(message: AppendedMessage): void;
}
