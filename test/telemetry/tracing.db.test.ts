import { SpanKind, SpanStatusCode } from '@opentelemetry/api';
import { AlwaysOffSampler } from '@opentelemetry/sdk-trace-base';
import type pg from 'pg';
import { expect, it } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer, type Consumer } from '../../src/consumer/index.ts';
import { createOutbox, defineCommand, defineEvent, type EventMessage } from '../../src/index.ts';
import { createRelay, pollingSource } from '../../src/relay/index.ts';
import { listeningLogger } from '../consumer/kit.ts';
import { relayAll } from '../cli/relayed.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { Sdk } from './spans.ts';

const OrderPlaced = defineEvent<{ readonly orderId: string }>('OrderPlaced', {
  topic: 'orders',
  key: ({ orderId }) => orderId,
});
const ShipOrder = defineCommand<{ readonly orderId: string }>('ShipOrder', { topic: 'shipping' });

async function publish({ pool }: TestDatabase, ...events: EventMessage[]): Promise<void> {
  await inTransaction(pool, (client) => createOutbox().publish(client, events));
}

async function inTransaction(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<unknown>): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    await work(client);
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  } finally {
    client.release();
  }
}

async function headers({ pool }: TestDatabase): Promise<Record<string, string>[]> {
  const { rows } = await pool.query<{ headers: Record<string, string> }>(
    'select headers from tailrace.outbox order by position',
  );
  return rows.map((row) => row.headers);
}

/** A relay and consumers over a database, all stopped at the end of the scope. */
async function pipeline(
  { connectionString }: TestDatabase,
  consumers: (log: ReturnType<typeof postgresLog>) => Consumer[],
): Promise<AsyncDisposable> {
  const log = postgresLog({ connectionString, partitions: 1 });
  const relay = createRelay({ source: pollingSource({ connectionString }), log });
  const services = [relay, ...consumers(log)];
  await Promise.all(services.map((service) => service.start()));
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(services.map((service) => service.stop()));
      await log.close();
    },
  };
}

it('one trace goes from the request through outbox, relay and handler to what the handler publishes, and on', async () => {
  await using database = await createTestDatabase();
  using sdk = new Sdk();
  const outbox = createOutbox();
  const placed = OrderPlaced({ orderId: 'A-1' });
  await using _running = await pipeline(database, (log) => [
    createConsumer({ log, group: 'fulfilment', database: database.pool })
      .on(OrderPlaced, ({ payload }, { tx }) => outbox.send(tx, ShipOrder(payload)))
      .on(ShipOrder, () => undefined),
  ]);
  const traceId = await sdk.inTrace('POST /orders', () => publish(database, placed));

  const names = ['publish orders', 'append orders', 'process orders', 'send shipping', 'append shipping'] as const;
  const [published, appended, processed, sent, appendedNext] = await Promise.all(names.map((name) => sdk.span(name)));
  const shipped = await sdk.span('process shipping');
  const request = await sdk.span('POST /orders');
  for (const span of [published, appended, processed, sent, appendedNext, shipped]) {
    expect(span?.spanContext().traceId, span?.name).toBe(traceId);
  }
  const idOf = (span = request): string => span.spanContext().spanId;
  expect(published?.parentSpanContext?.spanId).toBe(idOf(request));
  expect(appended?.parentSpanContext?.spanId).toBe(idOf(published));
  expect(processed?.parentSpanContext?.spanId).toBe(idOf(published));
  expect(sent?.parentSpanContext?.spanId).toBe(idOf(processed));
  expect(appendedNext?.parentSpanContext?.spanId).toBe(idOf(sent));
  expect(shipped.parentSpanContext?.spanId).toBe(idOf(sent));

  expect(published).toMatchObject({
    kind: SpanKind.PRODUCER,
    attributes: {
      'messaging.system': 'tailrace',
      'messaging.operation.name': 'publish',
      'messaging.operation.type': 'send',
      'messaging.destination.name': 'orders',
      'messaging.message.id': placed.id,
    },
  });
  expect(appended).toMatchObject({
    kind: SpanKind.CLIENT,
    attributes: { 'messaging.message.id': placed.id, 'messaging.destination.partition.id': '0' },
  });
  expect(processed).toMatchObject({
    kind: SpanKind.CONSUMER,
    status: { code: SpanStatusCode.UNSET },
    attributes: {
      'messaging.system': 'tailrace',
      'messaging.operation.name': 'process',
      'messaging.operation.type': 'process',
      'messaging.destination.name': 'orders',
      'messaging.destination.partition.id': '0',
      'messaging.consumer.group.name': 'fulfilment',
      'messaging.message.id': placed.id,
      'messaging.tailrace.offset': 0,
      'messaging.tailrace.attempt': 1,
    },
  });
});

it('a failed attempt and a dead letter are spans, and log lines with the message, its place and its trace', async () => {
  await using database = await createTestDatabase();
  using sdk = new Sdk();
  const logger = listeningLogger();
  const placed = OrderPlaced({ orderId: 'A-1' });
  await using _running = await pipeline(database, (log) => [
    createConsumer({
      ...{ log, group: 'billing', database: database.pool, logger },
      retries: { attempts: 2, backoff: { initialMs: 1 } },
    }).on(OrderPlaced, () => {
      throw new RangeError('no such price');
    }),
  ]);
  const traceId = await sdk.inTrace('POST /orders', () => publish(database, placed));
  const attempts = await sdk.all('process orders', 2);
  expect(attempts.map(({ attributes }) => attributes['messaging.tailrace.attempt'])).toEqual([1, 2]);
  for (const { status, attributes, events } of attempts) {
    expect(status).toEqual({ code: SpanStatusCode.ERROR, message: 'no such price' });
    expect(attributes['error.type']).toBe('RangeError');
    expect(events.map(({ name }) => name)).toEqual(['exception']);
  }
  const parked = await sdk.span('park orders');
  expect(parked.spanContext().traceId).toBe(traceId);
  expect(parked.attributes['messaging.operation.type']).toBe('settle');

  const lines = logger.lines.filter(({ fields }) => 'messageId' in fields);
  expect(lines.map(({ message }) => message)).toEqual([
    'A record was not handled',
    'A record is set aside as a dead letter',
  ]);
  for (const { fields } of lines) {
    expect(fields).toMatchObject({ messageId: placed.id, traceId, group: 'billing', topic: 'orders' });
    expect(fields).toMatchObject({ partition: 0, offset: '0', error: 'no such price' });
    expect(JSON.stringify(fields)).not.toContain('A-1');
  }
});

it('a batch has a span of its own that is linked to the traces of its messages', async () => {
  await using database = await createTestDatabase();
  using sdk = new Sdk();
  const traces = [
    await sdk.inTrace('first', () => publish(database, OrderPlaced({ orderId: 'A-1' }))),
    await sdk.inTrace('second', () => publish(database, OrderPlaced({ orderId: 'A-2' }))),
  ];
  await relayAll(database, 1); // the consumer finds both
  await using _running = await pipeline(database, (log) => [
    createConsumer({ log, group: 'reports', database: database.pool }).onBatch(OrderPlaced, () => undefined),
  ]);
  const batch = await sdk.span('process orders');
  expect(batch.parentSpanContext).toBeUndefined();
  expect(batch.links.map(({ context }) => context.traceId)).toEqual(traces);
  expect(batch.attributes['messaging.batch.message_count']).toBe(2);
  expect(traces).not.toContain(batch.spanContext().traceId);
});

it('a message keeps the trace that it was given, and others of the same call get that of the span', async () => {
  await using database = await createTestDatabase();
  using sdk = new Sdk();
  const given = `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`;
  const own = OrderPlaced({ orderId: 'A-1' }, { headers: { traceparent: given, tracestate: 'a=1' } });
  const plain = OrderPlaced({ orderId: 'A-2' }, { headers: { tenant: 'acme' } });
  const traceId = await sdk.inTrace('POST /orders', () => publish(database, own, plain));
  const span = await sdk.span('publish orders');
  expect(await headers(database)).toEqual([
    { traceparent: given, tracestate: 'a=1' },
    { tenant: 'acme', traceparent: `00-${traceId}-${span.spanContext().spanId}-01` },
  ]);
  expect(span.links.map(({ context }) => context.traceId)).toEqual(['ab'.repeat(16)]);
  expect(span.attributes).toMatchObject({ 'messaging.batch.message_count': 2 });
  expect(plain.headers).toEqual({ tenant: 'acme' }); // the caller's message is as it was
});

it('what is not sampled leaves no spans, and says so to whoever comes after', async () => {
  await using database = await createTestDatabase();
  using sdk = new Sdk(new AlwaysOffSampler());
  const traceId = await sdk.inTrace('POST /orders', () => publish(database, OrderPlaced({ orderId: 'A-1' })));
  expect((await headers(database))[0]?.['traceparent']).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`));
  expect(sdk.spans).toEqual([]);
});

it('without an SDK a message gets no headers', async () => {
  await using database = await createTestDatabase();
  await publish(database, OrderPlaced({ orderId: 'A-1' }));
  expect(await headers(database)).toEqual([{}]);
});

it('what publish refuses is the status of its span, and nothing is written', async () => {
  await using database = await createTestDatabase();
  using sdk = new Sdk();
  const command = ShipOrder({ orderId: 'A-1' }) as unknown as EventMessage;
  await expect(publish(database, OrderPlaced({ orderId: 'A-1' }), command)).rejects.toThrow(/send/);
  const { status, attributes } = await sdk.span('publish'); // of two topics
  expect(status.code).toBe(SpanStatusCode.ERROR);
  expect(attributes).toMatchObject({ 'error.type': 'WRONG_KIND' });
  expect(await headers(database)).toEqual([]);
});
