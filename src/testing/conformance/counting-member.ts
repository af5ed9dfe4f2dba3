import { createConsumer, type Consumer } from '../../consumer/consumer.ts';
import type { HandlerContext } from '../../consumer/handlers.ts';
import type { ConsumerOptions } from '../../consumer/options.ts';
import { defineEvent, type EventDefinition } from '../../message/definition.ts';

/** A lease that nobody loses because the machine is slow. */
export const LONG_LEASE_MS = 300_000;

/** Nothing in it is unique, so that doubled effects show. */
export const EFFECT_TABLE =
  'create table if not exists conformance_effect (id bigserial, topic text, group_name text, key text, n int, member text)';

/** The n-th message of a key. */
export interface Count {
  readonly key: string;
  readonly n: number;
}

export type CountHandler = (count: Count, context: HandlerContext) => unknown;

/** The one kind of message that members of the suite handle. */
export function counted(topic: string): EventDefinition<Count> {
  return defineEvent<Count>('Counted', { topic, key: ({ key }) => key });
}

/** What the suite leaves open of a member. */
export type CountingOptions = Pick<ConsumerOptions, 'log' | 'database'> & {
  readonly memberId: string;
} & Partial<ConsumerOptions>;

/**
 * A member of a group that writes an effect for each count of a topic; then, in the same transaction, it calls `then`.
 *
 * @param signature what an effect says of who wrote it; the id of the member where it is left out.
 */
export function countingMember(
  topic: string,
  options: CountingOptions,
  then?: CountHandler,
  signature: (count: Count) => string = () => options.memberId,
): Consumer {
  const { group = topic } = options;
  return createConsumer({
    concurrency: 4,
    leaseMs: LONG_LEASE_MS,
    heartbeatMs: 50,
    cursorIntervalMs: 50,
    retries: { attempts: 1_000_000, backoff: { initialMs: 1, maxMs: 10 } },
    circuitBreaker: false,
    drainTimeoutMs: 5_000,
    ...options,
    group,
  }).on(counted(topic), async ({ payload }, context) => {
    const { key, n } = payload;
    const sql = 'insert into conformance_effect (topic, group_name, key, n, member) values ($1, $2, $3, $4, $5)';
    await context.tx.query(sql, [topic, group, key, n, signature(payload)]);
    await then?.(payload, context);
  });
}
