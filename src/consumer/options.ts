import type pg from 'pg';
import type { Backoff } from '../base/backoff.ts';
import type { Logger } from '../base/logger.ts';
import type { Log } from '../broker/log.ts';
import type { CircuitRules } from './circuit.ts';
import type { DelayedRetries } from './delayed-retries.ts';
import type { DeadLetterMode } from './handlers.ts';
import type { Preset } from './presets.ts';

/** Where handlers' transactions run: a `pg.Pool`, or whatever hands out clients as it does. */
export interface ConsumerDatabase {
  connect(): Promise<pg.PoolClient>;
  /** A pool says here how many clients it hands out at most. */
  readonly options?: { readonly max?: number | undefined };
  /** A pool says here how many wait for a client. */
  readonly waitingCount?: number;
  /** A pool tells here of idle clients whose connection was lost: without a listener that ends the process. */
  on?(event: 'error', listener: (error: Error) => void): unknown;
  removeListener?(event: 'error', listener: (error: Error) => void): unknown;
}

/**
 * Where a group begins in a topic that it has not read before: its first record, its end, or the first record that was
 * appended at a time or later. A time has to have passed: which record will be the first then, nobody knows yet.
 */
export type StartFrom = 'earliest' | 'latest' | Date;

/**
 * How the members of a group share records out: each partition has one member, and each key its order; or all members take
 * records of all partitions, in no order.
 */
export type ConsumerMode = 'partitions' | 'work-queue';

/** When a consumer stops calling handlers, since nothing but failures comes of it. */
export interface CircuitBreakerOptions {
  /** So many attempts in a row have to fail by the handler's fault. @defaultValue 20 */
  readonly failures?: number;
  /** The waits before the probes. @defaultValue `{ initialMs: 1_000, maxMs: 60_000, factor: 2 }` */
  readonly wait?: Backoff;
}

/** A limit to how many messages handlers are given. */
export interface RateLimit {
  /**
   * What has a limit of its own: this consumer as a whole, each of its topics, or each key of a topic (messages without a
   * key have none).
   */
  readonly per: 'consumer' | 'topic' | 'key';
  /** Messages a second, in the long run. More than 0; fractions are allowed. */
  readonly rate: number;
  /** Messages at once after a pause. Batches are no larger. @defaultValue `rate`, rounded up */
  readonly burst?: number;
  /**
   * One limit for all members of the group together, kept in the group's database; all of them have to be given the same.
   * Takes a burst of 2 or more: half of it is kept back so that the limit holds at every moment. Not for keys, which have
   * one member at a time. @defaultValue false
   */
  readonly shared?: boolean;
}

/** A {@link RateLimit} with nothing left open. */
export interface RateLimitSettings {
  readonly per: RateLimit['per'];
  readonly rate: number;
  readonly burst: number;
  readonly shared: boolean;
}

/** What a consumer is to do, and how hard it may try. */
export interface ConsumerOptions {
  /** Where records are read. Stays the caller's: it is not closed with the consumer. */
  readonly log: Log;
  /** The group's name, 1 to 200 characters. The members of a group share its partitions; every group gets every message. */
  readonly group: string;
  /**
   * The database that handlers write to, with tailrace's tables in it. One client is kept for the group's own business;
   * each running handler uses one more.
   */
  readonly database: ConsumerDatabase;
  /** The schema of tailrace's tables. @defaultValue 'tailrace' */
  readonly schema?: string;
  /**
   * `'partitions'`: the group's members share its partitions, and the messages of a key are handled in their order.
   * `'work-queue'`: they share the records of each partition, a few at a time, so that there can be more of them than
   * partitions, and a slow one holds up nothing but what is in its hand (`prefetch.records`). Messages are then handled in no
   * order, also those of one key, and dead letters are `loose`. One value for a group. @defaultValue 'partitions'
   */
  readonly mode?: ConsumerMode;
  /**
   * Where a group begins in a topic that it has not read before. What did not exist then is read from its first record.
   * Of no effect once the group has begun. @defaultValue 'earliest'
   */
  readonly startFrom?: StartFrom;
  /**
   * What to do where retention has removed records that the group has not read: stand still and say so, until somebody
   * decides; or go on with the first record that is left, or with what comes from now on. How many are lost is logged as
   * an error, and counted. @defaultValue 'stop'
   */
  readonly onOutOfRange?: 'stop' | 'earliest' | 'latest';
  /** A record of a type without a handler: step over it, or keep it in `parked_message`. @defaultValue 'ignore' */
  readonly onUnhandledType?: 'ignore' | 'park';
  /**
   * `'effectively-once'`: a handler's effect in this database, and the row that says that it was made, are one transaction.
   * `'store-first'`: the same, of records that were stored in this database before: each is received from the log, stored in
   * the group's inbox, and handled from there. What is stored does not need the log any more, neither its retention nor that
   * it is there. {@link PlainConsumerOptions} has the others. @defaultValue 'effectively-once'
   */
  readonly delivery?: 'effectively-once' | 'store-first';
  /**
   * With `delivery: 'store-first'`: about how much of this member's partitions may be stored and not handled, all together. What
   * is more stays in the log.
   */
  readonly inbox?: {
    /** @defaultValue 100_000 */
    readonly maxRecords?: number;
    /** @defaultValue 256_000_000 */
    readonly maxBytes?: number;
  };
  /**
   * Sets options together that are not given themselves. `'throughput'`: `concurrency` 32, `prefetch` 20,000 records and
   * 128 MB, `cursorIntervalMs` 5,000, batches of 2,000. `'latency'`: `concurrency` 32, `prefetch` 500 records and 8 MB, batches
   * of 50. Where handlers have transactions, `concurrency` is at most two fewer than the pool has clients (a `pg.Pool` has 10
   * by default): give it 34. @defaultValue none
   */
  readonly preset?: Preset;
  /**
   * The most handlers that run at once in this member; where they have transactions, at most two fewer than the pool has
   * clients. @defaultValue 8
   */
  readonly concurrency?: number;
  /** What happens to a record whose handler throws. What passes by itself (a lost connection, a deadlock) does not count. */
  readonly retries?: {
    /** How often a record is tried at once, while its key waits in memory. @defaultValue 3 */
    readonly attempts?: number;
    /** The waits between these attempts. */
    readonly backoff?: Backoff;
    /**
     * What follows them: one attempt after each of these waits. Meanwhile the record is parked in the database, later ones of
     * its key line up behind it there, and everything else goes on. After the last one it is a dead letter.
     * @defaultValue none
     */
    readonly delayed?: DelayedRetries;
  };
  /**
   * What a dead letter does to its key: `loose`, it is stepped over, so that one bad record stops nothing; `strict`, later
   * records of the key line up behind it until an operator retries or discards it. Handlers may say otherwise for
   * themselves. What has expired, or was to be delivered later, never blocks its key. @defaultValue 'loose'
   */
  readonly deadLetters?: DeadLetterMode;
  /** How long a member that says nothing keeps its partitions, in milliseconds. @defaultValue 30_000 */
  readonly leaseMs?: number;
  /** How often a member says that it is there: at most a third of `leaseMs`. @defaultValue 1_000, or a third of `leaseMs` */
  readonly heartbeatMs?: number;
  /** How often the group's place is stored. After a crash, what came since is fetched again and skipped. @defaultValue 1_000 */
  readonly cursorIntervalMs?: number;
  /**
   * For how long the group knows a message as handled at the least, counted from when its id was made (UUIDv7), in
   * milliseconds: one that is published or appended twice within it is handled once. What the log may give again from the
   * group's place is known however old it is, and what is parked does not depend on it. One value for a group: all members
   * have to be given the same, and of several the one who looked last decides. Rows leave by whole weeks, once no group of the
   * schema needs them. At least as long as all attempts at a message may take. `false`: for ever.
   * @defaultValue 604_800_000, seven days, or as long as all attempts may take if that is longer
   */
  readonly dedupeWindowMs?: number | false;
  /**
   * About how much this member reads ahead of its handlers, all partitions together. In a work queue, exactly how many records
   * it has in hand at the most, those that its handlers run included.
   */
  readonly prefetch?: {
    /** @defaultValue 5_000; 500 in a work queue; or what the preset says */
    readonly records?: number;
    /** @defaultValue 32_000_000 */
    readonly bytes?: number;
  };
  /**
   * How long a handler may leave its transaction idle, waiting for something other than the database. Then the server ends
   * the session, so that a process that hangs cannot keep its locks for ever. In milliseconds. @defaultValue `leaseMs`
   */
  readonly handlerIdleMs?: number;
  /**
   * How long a handler may take, in milliseconds. Then its signal fires; a second later its connection is closed, and the
   * attempt counts as one that failed. `false`: as long as it likes. @defaultValue 300_000
   */
  readonly maxHandlerMs?: number | false;
  /**
   * Stops calling handlers when so many attempts in a row have failed, whatever their keys, and probes with one message
   * after a wait that grows. A probe that fails uses up no attempt. @defaultValue false
   */
  readonly circuitBreaker?: CircuitBreakerOptions | false;
  /** How many messages may be handled in which time. An attempt counts as often as it is made. @defaultValue no limits */
  readonly limits?: readonly RateLimit[];
  /** How long handlers may go on once the consumer stops or gives a partition up, in milliseconds. @defaultValue 30_000 */
  readonly drainTimeoutMs?: number;
  /** Names this member, 1 to 200 characters. No two live members of a group may share a name. @defaultValue a new UUID */
  readonly memberId?: string;
  /**
   * Makes this a static member, whose partitions are kept for it while it is away: for so long after it was last heard, or was
   * stopped, in milliseconds. Restarted within that time under its `memberId`, which has to be given, it goes on with the
   * same partitions, and nothing moves for anybody; meanwhile nobody handles them. @defaultValue they go to others at once
   * when it stops, and after `leaseMs` when it dies
   */
  readonly staticLeaseMs?: number;
  /**
   * Makes this a canary: the group's canaries together get the share of its partitions that `tailrace groups canary` has set,
   * and the others the rest. Where only one kind of members is there, it gets all. @defaultValue false
   */
  readonly canary?: boolean;
  /** @defaultValue says nothing */
  readonly logger?: Logger;
}

/** A consumer whose handlers have no transaction: `database` holds what the group knows, and dead letters. */
export interface PlainConsumerOptions extends Omit<ConsumerOptions, 'delivery' | 'inbox'> {
  /**
   * `'at-least-once'`: nothing is written for a message, and the group's place is stored after it; after a crash, messages
   * come again. `'at-most-once'`: each message is durably said to be handled before its handler is called, so it never comes
   * twice; one whose handler fails is a dead letter at once, and after a crash messages whose handlers ran are lost.
   */
  readonly delivery: 'at-least-once' | 'at-most-once';
}

/**
 * A consumer in a group of its own, so that every process gets every message, as to refresh a cache. The group begins with
 * the consumer and goes with it: when it stops, and when its process is gone, once its lease has run out. As long as it runs,
 * messages are delivered at least once, also after its process was asleep for longer than the lease.
 */
export interface EphemeralConsumerOptions extends Omit<
  ConsumerOptions,
  'delivery' | 'inbox' | 'staticLeaseMs' | 'canary'
> {
  readonly ephemeral: true;
  /** The group's name is this, `@`, and the `memberId`: 1 to 200 characters together. */
  readonly group: string;
  /** Nothing is written for a message. @defaultValue 'at-least-once' */
  readonly delivery?: 'at-least-once';
  /**
   * Where the group begins in each topic. What does not exist then is read from its first record. @defaultValue 'latest'
   */
  readonly startFrom?: StartFrom;
}

/** Any of them. */
export type AnyConsumerOptions = ConsumerOptions | PlainConsumerOptions | EphemeralConsumerOptions;

/** What a failed handler, or a crash, leaves of a message. */
export type DeliveryMode = NonNullable<ConsumerOptions['delivery'] | PlainConsumerOptions['delivery']>;

/** The same, with nothing left open. */
export interface ConsumerSettings {
  readonly log: Log;
  readonly group: string;
  readonly database: ConsumerDatabase;
  /** Quoted, ready to stand in SQL. */
  readonly schema: string;
  /** As it was given. */
  readonly schemaName: string;
  readonly startFrom: StartFrom;
  readonly onOutOfRange: 'stop' | 'earliest' | 'latest';
  readonly onUnhandledType: 'ignore' | 'park';
  readonly concurrency: number;
  /** The largest batch of a handler that does not say. */
  readonly batchRecords: number;
  readonly attempts: number;
  readonly backoff: Backoff;
  readonly delayed: DelayedRetries;
  readonly deadLetters: DeadLetterMode;
  readonly leaseMs: number;
  readonly heartbeatMs: number;
  readonly cursorIntervalMs: number;
  readonly dedupeWindowMs: number | false;
  readonly prefetch: { readonly records: number; readonly bytes: number };
  readonly handlerIdleMs: number;
  /** How handlers are called. What is stored first is then handled effectively once. */
  readonly delivery: Exclude<DeliveryMode, 'store-first'>;
  /** How much may be stored; `undefined`: records are handled as they come from the log. */
  readonly inbox: { readonly maxRecords: number; readonly maxBytes: number } | undefined;
  readonly mode: ConsumerMode;
  readonly maxHandlerMs: number | false;
  readonly circuitBreaker: CircuitRules | false;
  readonly limits: readonly RateLimitSettings[];
  readonly drainTimeoutMs: number;
  readonly memberId: string;
  readonly staticLeaseMs: number | undefined;
  /** The group goes with its process. */
  readonly ephemeral: boolean;
  readonly canary: boolean;
  readonly logger: Logger;
}
