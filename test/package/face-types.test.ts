import pg from 'pg';
import {
  type CommandMessage,
  type EventMessage,
  type Message,
  type PayloadOf,
  type Producer,
  type Service,
  createOutbox,
  createProducer,
  defineCommand,
  defineDocument,
  defineEvent,
} from 'tailrace';
import { type HomeLog, type Log, postgresLog } from 'tailrace/broker/postgres';
import {
  type Consumer,
  type ConsumerOptions,
  type PlainConsumerOptions,
  type HandlerContext,
  createConsumer,
} from 'tailrace/consumer';
import { type Relay, type RelayOptions, type Source, createRelay, pollingSource, walSource } from 'tailrace/relay';
import { expect, expectTypeOf, it } from 'vitest';
import { z } from 'zod';

// The compiler is what tests here: `npm run check` fails where a type is not as it is said, or where a line that must not
// compile does.

const OrderPlaced = defineEvent('OrderPlaced', {
  topic: 'orders',
  key: (order) => order.orderId,
  schema: z.object({ orderId: z.string(), at: z.coerce.date(), total: z.number().default(0) }),
});
const ShipOrder = defineCommand<{ orderId: string }>('ShipOrder', { topic: 'shipping' });
const StockList = defineDocument<readonly string[]>('StockList', { topic: 'stock' });
const connectionString = 'postgresql://localhost/shop';

it('infers payloads from the schema: what goes in, what a message holds, and what a handler gets', () => {
  type Input = Parameters<typeof OrderPlaced>[0];
  expectTypeOf<Input['orderId']>().toEqualTypeOf<string>();
  expectTypeOf<Input['total']>().toEqualTypeOf<number | undefined>();
  expectTypeOf(OrderPlaced).returns.toEqualTypeOf<EventMessage<{ orderId: string; at: Date; total: number }>>();
  expectTypeOf<PayloadOf<typeof OrderPlaced>>().toEqualTypeOf<{ orderId: string; at: string; total: number }>();
  expectTypeOf(ShipOrder).returns.toEqualTypeOf<CommandMessage<{ orderId: string }>>();
});

it('produces events, commands and documents without a transaction', () => {
  const compiles = (producer: Producer, order: EventMessage<{ a: 1 }>) => {
    expectTypeOf(producer.publish([order])).resolves.toEqualTypeOf<EventMessage<{ a: 1 }>[]>();
    return [
      producer.send([ShipOrder({ orderId: 'a' }), StockList([])]),
      // @ts-expect-error a command is sent
      producer.publish(ShipOrder({ orderId: 'a' })),
      // @ts-expect-error an event is published
      producer.send(order),
      // @ts-expect-error it needs a database
      createProducer({}),
    ];
  };
  expect(compiles).toBeTypeOf('function');
});

it('publishes events and sends commands and documents, and gives back what it was given', () => {
  const outbox = createOutbox();
  const compiles = (tx: pg.PoolClient, order: EventMessage<{ a: 1 }>) => {
    expectTypeOf(outbox.publish(tx, order)).resolves.toEqualTypeOf<EventMessage<{ a: 1 }>>();
    const list = [order, order];
    expectTypeOf(outbox.publish(tx, list)).resolves.toEqualTypeOf<EventMessage<{ a: 1 }>[]>();
    expectTypeOf(outbox.send(tx, ShipOrder({ orderId: 'a' }))).resolves.toExtend<CommandMessage>();
    return [
      outbox.send(tx, [ShipOrder({ orderId: 'a' }), StockList([])]),
      // @ts-expect-error a command is sent
      outbox.publish(tx, ShipOrder({ orderId: 'a' })),
      // @ts-expect-error a document is sent
      outbox.publish(tx, [order, StockList([])]),
      // @ts-expect-error an event is published
      outbox.send(tx, order),
      // @ts-expect-error one event among commands
      outbox.send(tx, [ShipOrder({ orderId: 'a' }), order]),
      // @ts-expect-error a pool is no transaction
      outbox.publish(new pg.Pool(), order),
    ];
  };
  expect(compiles).toBeTypeOf('function');
});

it('gives handlers the message and the transaction', () => {
  const compiles = (consumer: Consumer) =>
    consumer
      .on(OrderPlaced, (event, context) => {
        expectTypeOf(event).toEqualTypeOf<Message<{ orderId: string; at: string; total: number }>>();
        expectTypeOf(context).toEqualTypeOf<HandlerContext>();
        expectTypeOf(context.tx).toEqualTypeOf<pg.PoolClient>();
        expectTypeOf(context.record.offset).toEqualTypeOf<bigint>();
      })
      .on(ShipOrder, (command) => {
        expectTypeOf(command.payload).toEqualTypeOf<{ orderId: string }>();
      })
      .onBatch(StockList, { maxRecords: 10 }, (documents) => {
        expectTypeOf(documents).toEqualTypeOf<readonly Message<readonly string[]>[]>();
      })
      // @ts-expect-error an order has no customer
      .on(OrderPlaced, (event) => event.payload.customer)
      // @ts-expect-error a message is no definition
      .on(ShipOrder({ orderId: 'a' }), () => undefined)
      // @ts-expect-error a batch has a size in records
      .onBatch(ShipOrder, { maxBytes: 10 }, () => undefined);
  expect(compiles).toBeTypeOf('function');
});

it('takes the options of a relay and of its sources', () => {
  expectTypeOf(createRelay).parameters.toEqualTypeOf<[RelayOptions]>();
  expectTypeOf(createRelay).returns.toEqualTypeOf<Relay>();
  expectTypeOf<Relay>().toExtend<Service>();
  expectTypeOf<RelayOptions['source']>().toEqualTypeOf<Source>();
  expectTypeOf<RelayOptions['log']>().toEqualTypeOf<HomeLog>();
  expectTypeOf(walSource).returns.toExtend<Source>();
  expectTypeOf(pollingSource).returns.toExtend<Source>();
  const compiles = (log: HomeLog, readOnly: Log, source: Source): unknown[] => [
    createRelay({ source, log, holder: 'a', leaseMs: 5_000, onHalt: () => undefined }),
    // @ts-expect-error there must be a log
    createRelay({ source }),
    // @ts-expect-error there must be a source
    createRelay({ log }),
    // @ts-expect-error a relay appends: a log that can only be read is not enough
    createRelay({ source, log: readOnly }),
    // @ts-expect-error a lease is in milliseconds
    createRelay({ source, log, leaseMs: '5s' }),
    // @ts-expect-error no such option
    createRelay({ source, log, leaseSeconds: 5 }),
    // @ts-expect-error a source needs a server
    walSource({ slot: 'a' }),
    // @ts-expect-error polling has no slot
    pollingSource({ connectionString, slot: 'a' }),
  ];
  expect(compiles).toBeTypeOf('function');
});

it('takes the options of a log and of a consumer', () => {
  expectTypeOf(createConsumer).toBeCallableWith({} as ConsumerOptions);
  expectTypeOf(createConsumer).toBeCallableWith({} as PlainConsumerOptions);
  expectTypeOf<Consumer>().toExtend<Service>();
  expectTypeOf(postgresLog).returns.toExtend<HomeLog>();
  expectTypeOf<HomeLog>().toExtend<Log>();
  expectTypeOf<ConsumerOptions['log']>().toEqualTypeOf<Log>();
  expectTypeOf<ConsumerOptions['startFrom']>().toEqualTypeOf<'earliest' | 'latest' | Date | undefined>();
  expectTypeOf<ConsumerOptions['onUnhandledType']>().toEqualTypeOf<'ignore' | 'park' | undefined>();
  const compiles = (log: Log, database: pg.Pool): unknown[] => [
    createConsumer({ log, group: 'billing', database, startFrom: new Date(), retries: { attempts: 5 } }),
    postgresLog({ connectionString, schema: 'a', partitions: 4, createTopics: false }),
    // @ts-expect-error there must be a group
    createConsumer({ log, database }),
    // @ts-expect-error there must be a database
    createConsumer({ log, group: 'billing' }),
    // @ts-expect-error there must be a log
    createConsumer({ group: 'billing', database }),
    // @ts-expect-error the ends have names
    createConsumer({ log, group: 'billing', database, startFrom: 'beginning' }),
    // @ts-expect-error no such option
    createConsumer({ log, group: 'billing', database, leaseSeconds: 30 }),
    // @ts-expect-error partitions are a number
    postgresLog({ connectionString, partitions: '8' }),
  ];
  expect(compiles).toBeTypeOf('function');
});
