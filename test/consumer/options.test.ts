import { describe, expect, it } from 'vitest';
import type { Log } from '../../src/broker/log.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import type { ConsumerOptions } from '../../src/consumer/options.ts';
import { settingsOf } from '../../src/consumer/settings.ts';
import { defineEvent } from '../../src/message/definition.ts';

/** Of pools and logs, only what making a consumer looks at: nothing here is started. */
const never = (): Promise<never> => Promise.reject(new Error('not started'));
const log: Log = {
  capabilities: new Set(['time-seek']),
  partitionCount: never,
  ends: never,
  offsetsAt: never,
  fetch: never,
  close: never,
};
const pool = (max?: number) => ({ connect: never, options: { max } });
const options = (changes: Partial<ConsumerOptions> = {}): ConsumerOptions => ({
  log,
  group: 'billing',
  database: pool(10),
  ...changes,
});

const OrderPlaced = defineEvent<{ orderId: string }>('OrderPlaced', { topic: 'orders' });

describe('settingsOf', () => {
  it('fills in the defaults', () => {
    expect(settingsOf(options())).toMatchObject({
      schema: '"tailrace"',
      startFrom: 'earliest',
      onUnhandledType: 'ignore',
      concurrency: 8,
      attempts: 3,
      leaseMs: 30_000,
      heartbeatMs: 1_000,
      cursorIntervalMs: 1_000,
      handlerIdleMs: 30_000,
      maxHandlerMs: 300_000,
      circuitBreaker: false,
      limits: [],
    });
  });

  it.each([
    [null, /there are no options/],
    [options({ log: null as never }), /log has no method fetch\. Expected postgresLog/],
    [options({ database: null as never }), /database has no method connect/],
    [{ ...options(), concurency: 3 }, /there is no option concurency\. Expected log, group/],
    [options({ retries: { attemps: 3 } as never }), /there is no option retries\.attemps\. Expected attempts/],
    [options({ prefetch: 500 as never }), /prefetch is 500\. Expected an object with records, bytes/],
    [options({ logger: {} as never }), /logger has no method debug\. Expected pino/],
    [options({ logger: 5 as never }), /logger has no method debug/],
    [options({ limits: { per: 'key', rate: 1 } as never }), /limits is { per: 'key', rate: 1 }\. Expected a list/],
    [options({ limits: [{ per: 'key', rates: 1 } as never] }), /there is no option limits\[0\]\.rates/],
    [options({ circuitBreaker: true as never }), /circuitBreaker is true\. Expected an object with failures, wait/],
    [options({ circuitBreaker: { wait: { maxMs: -1 } } }), /circuitBreaker\.wait\.maxMs is -1/],
    [
      options({ retries: { backoff: { initialMs: '5' as never } } }),
      /retries\.backoff\.initialMs is "5"\. Expected a wh/,
    ],
    [options({ retries: { backoff: { factor: 0.5 } } }), /retries\.backoff\.factor is 0\.5\. Expected a number of 1/],
    [options({ retries: { backoff: { delayMs: 5 } as never } }), /there is no option retries\.backoff\.delayMs/],
    [options({ retries: { delayed: true as never } }), /retries\.delayed is true\. Expected an object with attempts/],
    [options({ retries: { delayed: { delaysMs: [] } } }), /retries\.delayed\.delaysMs is \[\]\. Expected the waits/],
    [options({ retries: { delayed: { delaysMs: [1], attempts: 2 } } }), /no option retries\.delayed\.attempts/],
    [options({ startFrom: 'now' as never }), /startFrom is "now"\. Expected earliest, latest or a Date/],
  ])('refuses what is no option: %#', (given, message) => {
    expect(() => settingsOf(given as never)).toThrow(message);
  });

  it('lets handlers use all but two of the clients of a small pool', () => {
    expect(settingsOf(options({ database: pool(5) })).concurrency).toBe(3);
    expect(settingsOf(options({ database: pool() })).concurrency).toBe(8);
  });

  it.each([
    ['throughput', { concurrency: 32, cursorIntervalMs: 5_000, batchRecords: 2_000 }, 20_000, 128_000_000],
    ['latency', { concurrency: 32, cursorIntervalMs: 1_000, batchRecords: 50 }, 500, 8_000_000],
  ] as const)('sets what the preset %s stands for, but never what is given', (preset, expected, records, bytes) => {
    const large = options({ preset, database: pool(34) });
    expect(settingsOf(large)).toMatchObject({ ...expected, prefetch: { records, bytes } });
    const given = { concurrency: 2, cursorIntervalMs: 7, prefetch: { records: 9 } };
    expect(settingsOf({ ...large, ...given })).toMatchObject({ ...given, prefetch: { records: 9, bytes } });
    expect(settingsOf(options({ preset, database: pool(10) })).concurrency).toBe(8); // what the pool can spare
  });

  it('knows no other preset', () => {
    const wrong = { preset: 'default' } as unknown as Partial<ConsumerOptions>;
    expect(() => settingsOf(options(wrong))).toThrow(/preset is "default"\. Expected throughput or latency/);
  });

  it('takes a time to start from only where the log can find it', () => {
    const blind: Log = { ...log, capabilities: new Set() };
    expect(() => settingsOf(options({ log: blind, startFrom: new Date(0) }))).toThrow(
      expect.objectContaining({
        code: 'UNSUPPORTED_CAPABILITY',
        details: { capability: 'time-seek', capabilities: [] },
      }),
    );
    expect(settingsOf(options({ log: blind })).startFrom).toBe('earliest');
  });

  it('fills in a circuit breaker and limits', () => {
    const limits = [
      { per: 'key', rate: 0.5 },
      { per: 'topic', rate: 10, shared: true },
    ] as const;
    const { circuitBreaker, ...rest } = settingsOf(options({ circuitBreaker: { wait: { maxMs: 9 } }, limits }));
    expect(circuitBreaker).toEqual({ failures: 20, wait: { initialMs: 1_000, maxMs: 9 } });
    expect(rest.limits).toEqual([
      { per: 'key', rate: 0.5, burst: 1, shared: false },
      { per: 'topic', rate: 10, burst: 10, shared: true },
    ]);
  });

  it('lets handlers without a transaction outnumber the clients of the pool', () => {
    const plain = { ...options({ database: pool(3) }), delivery: 'at-least-once', concurrency: 100 } as const;
    expect(settingsOf(plain)).toMatchObject({ delivery: 'at-least-once', concurrency: 100 });
    const twice = { ...plain, delivery: 'at-most-once', retries: { attempts: 2 } } as const;
    expect(() => settingsOf(twice)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }));
  });

  it('stores first and handles effectively once where that is asked for, within bounds', () => {
    const first = { ...options(), delivery: 'store-first' } as const;
    expect(settingsOf(first)).toMatchObject({
      delivery: 'effectively-once',
      inbox: { maxRecords: 100_000, maxBytes: 256_000_000 },
    });
    expect(settingsOf({ ...first, inbox: { maxRecords: 7 } }).inbox).toEqual({ maxRecords: 7, maxBytes: 256_000_000 });
    expect(settingsOf(options()).inbox).toBeUndefined();
    expect(() => settingsOf({ ...first, inbox: { maxRecords: 0 } })).toThrow(/inbox\.maxRecords is 0/);
    expect(() => settingsOf({ ...first, concurrency: 100, database: pool(10) })).toThrow(/concurrency is 100/);
    for (const delivery of [undefined, 'effectively-once', 'at-least-once'] as const) {
      const given = { ...options(), ...(delivery && { delivery }), inbox: {} } as never;
      expect(() => settingsOf(given)).toThrow(/inbox is given/);
    }
  });

  it('gives an ephemeral group a name, a place to start from and a delivery of its own', () => {
    const ephemeral = { ...options(), delivery: 'at-least-once', ephemeral: true, group: 'cache' } as const;
    expect(settingsOf({ ...ephemeral, memberId: 'a' })).toMatchObject({
      ...{ group: 'cache@a', memberId: 'a', startFrom: 'latest', delivery: 'at-least-once', ephemeral: true },
    });
    const { group, memberId } = settingsOf(ephemeral);
    expect(group).toBe(`cache@${memberId}`);
    expect(settingsOf({ ...ephemeral, startFrom: 'earliest' }).startFrom).toBe('earliest');
    for (const unfit of [{ delivery: 'effectively-once' }, { staticLeaseMs: 9, memberId: 'a' }, { canary: true }])
      expect(() => settingsOf({ ...ephemeral, ...(unfit as object) })).toThrow(
        expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringMatching(/ephemeral/) as string }),
      );
    expect(settingsOf(options())).toMatchObject({ ephemeral: false, canary: false });
  });

  it('beats three times a lease, at least', () => {
    expect(settingsOf(options({ leaseMs: 600 })).heartbeatMs).toBe(200);
  });

  it.each<[string, Partial<ConsumerOptions>]>([
    ['concurrency', { concurrency: 9 }],
    ['concurrency', { concurrency: 0 }],
    ['database', { database: pool(2) }],
    ['database', { database: {} as never }],
    ['group', { group: '' }],
    ['memberId', { memberId: 'x'.repeat(201) }],
    ['canary', { canary: 10 as never }],
    ['staticLeaseMs', { staticLeaseMs: 1_000 }],
    ['staticLeaseMs', { staticLeaseMs: 0, memberId: 'm' }],
    ['startFrom', { startFrom: new Date(Number.NaN) }],
    ['startFrom', { startFrom: new Date('2999-01-01') }],
    ['startFrom', { startFrom: 'now' as never }],
    ['onUnhandledType', { onUnhandledType: 'throw' as never }],
    ['retries.attempts', { retries: { attempts: 0 } }],
    ['leaseMs', { leaseMs: 1.5 }],
    ['heartbeatMs', { leaseMs: 3_000, heartbeatMs: 1_001 }],
    ['delivery', { delivery: 'twice' as never }],
    ['maxHandlerMs', { maxHandlerMs: 0 }],
    ['circuitBreaker.failures', { circuitBreaker: { failures: 0 } }],
    ['limits[0].per', { limits: [{ per: 'member' as never, rate: 1 }] }],
    [
      'limits[1].rate',
      {
        limits: [
          { per: 'key', rate: 1 },
          { per: 'key', rate: 0 },
        ],
      },
    ],
    ['limits[0].burst', { limits: [{ per: 'consumer', rate: 1, burst: 1, shared: true }] }],
    ['limits[0] is shared', { limits: [{ per: 'key', rate: 1, shared: true }] }],
    ['prefetch.bytes', { prefetch: { bytes: 0 } }],
  ])('names the bad option: %s in %o', (name, changes) => {
    expect(() => settingsOf(options(changes))).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringContaining(name) }),
    );
  });
});

describe('createConsumer', () => {
  it('refuses a second handler of a type, single or batch', () => {
    const handler = () => undefined;
    const duplicate = expect.objectContaining({ code: 'DUPLICATE_HANDLER' });
    expect(() => createConsumer(options()).on(OrderPlaced, handler).on(OrderPlaced, handler)).toThrow(duplicate);
    expect(() => createConsumer(options()).on(OrderPlaced, handler).onBatch(OrderPlaced, handler)).toThrow(duplicate);
  });

  it('refuses a handler without a definition, and a definition without a handler', () => {
    const consumer = createConsumer(options());
    expect(() => consumer.on({} as never, () => undefined)).toThrow(/on was called without a definition/);
    expect(() => consumer.on(OrderPlaced, undefined as never)).toThrow(/The handler of OrderPlaced is missing/);
    expect(() => consumer.onBatch(OrderPlaced, { maxRecords: 5 } as never)).toThrow(
      /handler of OrderPlaced is missing/,
    );
  });

  it('refuses options of a handler that are none, and says how a method is called', () => {
    const consumer = createConsumer(options());
    const handler = () => undefined;
    const refused = (call: () => unknown, message: RegExp): void => {
      expect(call).toThrow(
        expect.objectContaining({ code: 'INVALID_OPTION', message: expect.stringMatching(message) }),
      );
    };
    refused(() => consumer.on(OrderPlaced, {} as never, handler as never), /on\(definition, handler, options\)/);
    refused(() => consumer.on(OrderPlaced, handler, 5 as never), /are 5\. Expected an object, or none/);
    refused(
      () => consumer.on(OrderPlaced, handler, { onReply: 'skip' } as never),
      /no option onReply\. Expected deadL/,
    );
    refused(
      () => consumer.onBatch(OrderPlaced, { cursor: 'tx' as never }, handler),
      /cursor .* is "tx"\. Expected lazy/,
    );
    refused(() => consumer.onBatch(OrderPlaced, { size: 5 } as never, handler), /no option size\. Expected maxRecords/);
    refused(
      () => consumer.onBatch(OrderPlaced, handler as never, { cursor: 'in-transaction' } as never),
      /is object\. Expected a function: onBatch\(definition, options, handler\)/,
    );
    expect(consumer.onBatch(OrderPlaced, handler)).toBe(consumer);
  });

  it('tells types of two topics apart', () => {
    const other = defineEvent('OrderPlaced', { topic: 'archive' });
    const handler = () => undefined;
    expect(() => createConsumer(options()).on(OrderPlaced, handler).on(other, handler)).not.toThrow();
  });

  it('refuses to start without handlers', async () => {
    await expect(createConsumer(options()).start()).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  });

  it('gives a tx only to handlers that have a transaction', async () => {
    createConsumer(options()).on(OrderPlaced, (_event, { tx }) => tx.query('select'));
    const plain = createConsumer({ ...options(), delivery: 'at-most-once' });
    // @ts-expect-error there is none
    plain.on(OrderPlaced, (_event, { tx }) => tx);
    const moving = createConsumer({ ...options(), delivery: 'at-least-once' });
    moving.onBatch(OrderPlaced, { cursor: 'in-transaction' }, () => undefined);
    await expect(moving.start()).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  });

  it('can be stopped before it starts, and then starts no more', async () => {
    const consumer = createConsumer(options()).on(OrderPlaced, () => undefined);
    await consumer.stop();
    await consumer.stop();
    expect(consumer.status().state).toBe('stopped');
    await expect(consumer.start()).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('gives handlers the payload of their definition', () => {
    createConsumer(options())
      .on(OrderPlaced, (event) => event.payload.orderId satisfies string)
      // @ts-expect-error an order has no total
      .on(defineEvent<{ orderId: string }>('OrderPaid', { topic: 'orders' }), (event) => event.payload.total)
      .onBatch(defineEvent<{ n: number }>('Counted', { topic: 'numbers' }), { maxRecords: 10 }, (events) =>
        events.map(({ payload }) => payload.n satisfies number),
      );
  });
});
