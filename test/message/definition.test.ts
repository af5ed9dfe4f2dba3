import * as v from 'valibot';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { z } from 'zod';
import { isTailraceError } from '../../src/base/errors.ts';
import {
  type CommandDefinition,
  type Definition,
  type DefinitionOptions,
  type EventDefinition,
  type PayloadOf,
  defineCommand,
  defineDocument,
  defineEvent,
} from '../../src/message/definition.ts';
import type { CommandMessage, DocumentMessage, EventMessage, Message } from '../../src/message/message.ts';

interface Order {
  readonly orderId: string;
  readonly total: number;
}

const OrderPlaced = defineEvent<Order>('OrderPlaced', { topic: 'orders', key: (order) => order.orderId });
const order: Order = { orderId: '7', total: 10 };

describe('a definition', () => {
  it('tells its facts and cannot be changed', () => {
    const ReserveStock = defineCommand('ReserveStock', { topic: 'stock', version: 2 });
    expect({ ...ReserveStock }).toEqual({
      kind: 'command',
      type: 'ReserveStock',
      topic: 'stock',
      schema: undefined,
      version: 2,
    });
    expect(ReserveStock.name).toBe('ReserveStock');
    expect(Object.isFrozen(ReserveStock)).toBe(true);
  });

  it('makes a frozen message', () => {
    const before = Date.now();
    const message = OrderPlaced(order);
    expect(message).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/) as string,
      kind: 'event',
      type: 'OrderPlaced',
      topic: 'orders',
      key: '7',
      headers: {},
      payload: order,
      occurredAt: expect.any(Date) as Date,
    });
    expect(message.occurredAt.getTime()).toBeGreaterThanOrEqual(before);
    expect(Object.isFrozen(message)).toBe(true);
    expect(Object.isFrozen(message.headers)).toBe(true);
    expect(OrderPlaced(order).id).not.toBe(message.id);
  });

  it('takes id, headers and occurredAt from the caller', () => {
    const id = '0190F3A0-0000-7000-8000-00000000000A';
    const occurredAt = new Date(0);
    const message = OrderPlaced(order, { id, headers: { tenant: 'a' }, occurredAt });
    expect(message).toMatchObject({ id: id.toLowerCase(), headers: { tenant: 'a' }, occurredAt });
  });

  it.each([
    ['INVALID_MESSAGE', { id: 'seven' }],
    ['INVALID_MESSAGE', { occurredAt: new Date(NaN) }],
    ['INVALID_HEADER', { headers: { tenant: '\0' } }],
  ])('refuses what cannot be stored: %s', (code, options) => {
    expect(() => OrderPlaced(order, options)).toThrow(expect.objectContaining({ code }));
  });

  it('without a key function makes messages without a key', () => {
    expect(defineEvent('Ticked', { topic: 'clock' })(1).key).toBeNull();
  });

  it('may leave a message without a key', () => {
    const definition = defineEvent<Order>('OrderPlaced', { topic: 'orders', key: () => null });
    expect(definition(order).key).toBeNull();
  });

  it.each([
    ['undefined', undefined],
    ['a number', 7],
    ['a string with a NUL character', 'secret\0'],
  ])('refuses a key that is %s, naming the type', (found, key) => {
    const definition = defineEvent<Order>('OrderPlaced', { topic: 'orders', key: () => key as unknown as string });
    const make = (): unknown => definition(order);
    expect(make).toThrow(expect.objectContaining({ code: 'INVALID_KEY' }));
    expect(make).toThrow(`The key of OrderPlaced is ${found}.`);
  });

  it('takes when it may be handled, and refuses what is no time', () => {
    const expiresAt = new Date('2040-01-01');
    expect(OrderPlaced(order, { expiresAt, delayMs: 5 })).toMatchObject({ expiresAt, delayMs: 5 });
    expect(OrderPlaced(order, { deliverAt: expiresAt })).toMatchObject({ deliverAt: expiresAt });
    expect(Object.keys(OrderPlaced(order))).not.toContain('deliverAt');
    const make = (options: object) => (): unknown => OrderPlaced(order, options);
    expect(make({ expiresAt: new Date(Number.NaN) })).toThrow(
      /expiresAt of a message of type OrderPlaced is an invalid/,
    );
    expect(make({ deliverAt: '2040' })).toThrow(/deliverAt of a message of type OrderPlaced is a string/);
    expect(make({ delayMs: -1 })).toThrow(/has the delayMs -1/);
    expect(make({ delayMs: 1, deliverAt: expiresAt })).toThrow(/both deliverAt and delayMs/);
  });

  it('refuses options of a message that are none', () => {
    const make = (own: unknown) => (): unknown =>
      defineEvent<Order>('OrderPlaced', { topic: 'orders' })(order, own as never);
    expect(make({ delay: 5_000 })).toThrow(/has an unknown option delay\. Expected id, headers, .*delayMs/);
    expect(make({ delay: 5_000 })).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }));
    expect(make(5)).toThrow(/options of a message OrderPlaced are a number/);
    expect(make(null)).toThrow(/options of a message OrderPlaced are null/);
  });

  it('puts its version into a header, over that of the caller', () => {
    const definition = defineEvent<Order>('OrderPlaced', { topic: 'orders', version: 3 });
    expect({ ...definition(order).headers }).toEqual({ 'schema-version': '3' });
    expect({ ...definition(order, { headers: { a: 'b', 'schema-version': '1' } }).headers }).toEqual({
      a: 'b',
      'schema-version': '3',
    });
  });

  it.each<[string, string, unknown, RegExp]>([
    ['INVALID_TYPE', '', { topic: 'a' }, /empty/],
    ['INVALID_TYPE', 'x'.repeat(201), { topic: 'a' }, /201/],
    ['INVALID_TOPIC', 'A', { topic: 'a b' }, /topic of A is "a b"/],
    ['INVALID_TOPIC', 'A', {}, /topic of A is undefined/],
    ['INVALID_OPTION', 'A', undefined, /options of A are undefined/],
    ['INVALID_OPTION', 'A', { topic: 'a', key: 'orderId' }, /key of A is a string/],
    ['INVALID_OPTION', 'A', { topic: 'a', schema: {} }, /schema of A is an object/],
    ['INVALID_OPTION', 'A', { topic: 'a', schema: null }, /schema of A is null/],
    ['INVALID_OPTION', 'A', { topic: 'a', version: 0 }, /version of A is 0/],
    ['INVALID_OPTION', 'A', { topic: 'a', version: 1.5 }, /version of A is 1.5/],
    ['INVALID_OPTION', 'A', { topic: 'a', version: '1' }, /version of A is a string/],
    ['INVALID_OPTION', 'A', { topic: 'a', vresion: 1 }, /unknown option vresion/],
  ])('%s %#', (code, type, options, message) => {
    const define = (): unknown => defineEvent(type, options as DefinitionOptions<unknown>);
    expect(define).toThrow(expect.objectContaining({ code }));
    expect(define).toThrow(message);
  });
});

const zodOrder = z.object({
  orderId: z.string().trim(),
  total: z.number().default(0),
  lines: z.array(z.object({ sku: z.string().max(3) })).optional(),
});
const valibotOrder = v.object({
  orderId: v.pipe(v.string(), v.trim()),
  total: v.optional(v.number(), 0),
  lines: v.optional(v.array(v.object({ sku: v.pipe(v.string(), v.maxLength(3), v.regex(/^\d+$/)) }))),
});

describe.each([
  ['zod', defineEvent('OrderPlaced', { topic: 'orders', key: (o) => o.orderId, schema: zodOrder })],
  ['valibot', defineEvent('OrderPlaced', { topic: 'orders', key: (o) => o.orderId, schema: valibotOrder })],
])('a schema of %s', (_, definition) => {
  it('makes the payload, and the key is taken from what it made', () => {
    const message = definition({ orderId: ' 7 ' });
    expect(message.payload).toEqual({ orderId: '7', total: 0 });
    expect(message.key).toBe('7');
  });

  it('refuses a payload, naming type, paths and reasons', () => {
    const make = (): unknown => definition({ orderId: 5, lines: [{ sku: '1' }, {}] } as never);
    expect(make).toThrow(expect.objectContaining({ code: 'SCHEMA_VIOLATION', retryable: false }));
    expect(make).toThrow(/^The payload of OrderPlaced does not fit its schema: /);
    expect(make).toThrow(/payload\.orderId: [^;]*expected string/i);
    expect(make).toThrow(/; payload\.lines\[1\]\.sku: [^;]+\.$/);
  });

  it('never shows the value', () => {
    const secret = 'pass"w.rd (x)\\';
    const thrown = thrownBy(() => definition({ orderId: '7', total: secret, lines: [{ sku: secret }] } as never));
    expect(isTailraceError(thrown, 'SCHEMA_VIOLATION')).toBe(true);
    const told = JSON.stringify([(thrown as Error).message, thrown]) + String((thrown as Error).cause);
    expect(told).toContain('payload.total');
    expect(told).not.toContain('w.rd');
  });

  it('never shows what it made of the value', () => {
    const code = v.pipe(v.string(), v.trim(), v.digits());
    const valibot = defineEvent('CodeSent', { topic: 'codes', schema: v.object({ code }) });
    const make = (): unknown => valibot({ code: ' swordfish ' });
    expect(make).toThrow(/payload\.code: [^;]*\(value hidden\)/);
    expect(make).not.toThrow(/swordfish/);
  });

  it('counts what it does not show', () => {
    const lines = Array.from({ length: 9 }, () => ({ sku: 5 }));
    const thrown = thrownBy(() => definition({ orderId: '7', lines } as never)) as Error;
    expect(thrown.message).toMatch(/and 4 more\.$/);
    expect(thrown).toHaveProperty('details.violations.length', 9);
  });
});

describe('a schema', () => {
  it.each([
    ['zod', z.string().refine(() => Promise.resolve(true))],
    [
      'valibot',
      v.pipeAsync(
        v.string(),
        v.checkAsync(() => Promise.reject(new Error('unheard'))),
      ),
    ],
  ])('of %s that is asynchronous is refused', (_, schema) => {
    const definition = defineEvent('OrderPlaced', { topic: 'orders', schema });
    const make = (): unknown => definition('a');
    expect(make).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }));
    expect(make).toThrow(/schema of OrderPlaced answers with a promise/);
  });

  it.each<[unknown, string, string]>([
    ['abc', 'got abc, "abc", not abcd or xabc', 'got (value hidden), (value hidden), not abcd or xabc'],
    [-1.5, 'got -1.5, at least 11.5', 'got (value hidden), at least 11.5'],
    [12n, 'got 12', 'got (value hidden)'],
    [true, 'received true', 'received (value hidden)'],
    [new Date(NaN), 'got null', 'got null'],
    [new Date(0), 'got 1970-01-01T00:00:00.000Z.', 'got (value hidden)'],
    ['$&', 'got $&', 'got (value hidden)'],
    ['', 'got ""', 'got ""'],
    [null, 'got null', 'got null'],
  ])('has values taken out of what it says: %#', (value, said, told) => {
    const schema = { '~standard': { version: 1, vendor: 'test', validate: () => ({ issues: [{ message: said }] }) } };
    const definition = defineEvent('OrderPlaced', { topic: 'orders', schema: schema as never });
    expect(thrownBy(() => definition(value as never))).toMatchObject({
      details: { violations: [{ path: 'payload', message: told }] },
    });
  });

  it('may be a function, and give a path of objects', () => {
    const issue = { message: 'no', path: [{ key: 'a' }, 1, { key: Symbol('s') }] };
    const schema = Object.assign(() => undefined, {
      '~standard': { version: 1, vendor: 'test', validate: () => ({ issues: [issue] }) },
    });
    const definition = defineEvent('OrderPlaced', { topic: 'orders', schema: schema as never });
    expect(() => definition({})).toThrow('payload.a[1]["Symbol(s)"]: no.');
  });
});

function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return expect.unreachable('nothing was thrown');
}

describe('types', () => {
  it('come from the schema', () => {
    const definition = defineEvent('OrderPlaced', {
      topic: 'orders',
      key: (payload) => {
        expectTypeOf(payload).toEqualTypeOf<{ orderId: string; at: Date; total: number }>();
        return payload.orderId;
      },
      schema: z.object({ orderId: z.string(), at: z.coerce.date<string>(), total: z.number().default(0) }),
    });
    expectTypeOf(definition).parameter(0).toEqualTypeOf<{ orderId: string; at: string; total?: number | undefined }>();
    expectTypeOf(definition).returns.toEqualTypeOf<EventMessage<{ orderId: string; at: Date; total: number }>>();
    expectTypeOf<PayloadOf<typeof definition>>().toEqualTypeOf<{ orderId: string; at: string; total: number }>();
    // @ts-expect-error total is a number
    expect(() => definition({ orderId: '7', at: '2026-01-01', total: 'ten' })).toThrow();
  });

  it('of valibot come through too', () => {
    const definition = defineCommand('Pay', {
      topic: 'pay',
      schema: v.object({ cents: v.pipe(v.string(), v.toNumber()) }),
    });
    expectTypeOf(definition).toEqualTypeOf<CommandDefinition<{ cents: string }, { cents: number }>>();
  });

  it('are given by hand without a schema', () => {
    expectTypeOf(OrderPlaced).toEqualTypeOf<EventDefinition<Order>>();
    expectTypeOf<PayloadOf<typeof OrderPlaced>>().toEqualTypeOf<Order>();
    expectTypeOf(defineEvent('A', { topic: 'a' })).toEqualTypeOf<EventDefinition<unknown>>();
    // @ts-expect-error total is missing
    OrderPlaced({ orderId: '7' });
    // @ts-expect-error a key is a string or null
    defineEvent<Order>('A', { topic: 'a', key: (payload) => payload.total });
    // @ts-expect-error a key must not be forgotten
    defineEvent<{ orderId?: string }>('A', { topic: 'a', key: (payload) => payload.orderId });
  });

  it('tell the kinds apart', () => {
    const command = defineCommand<Order>('PlaceOrder', { topic: 'orders' });
    const document = defineDocument<Order>('OrderSheet', { topic: 'orders' });
    expectTypeOf(OrderPlaced(order)).toEqualTypeOf<EventMessage<Order>>();
    expectTypeOf(command(order)).toEqualTypeOf<CommandMessage<Order>>();
    expectTypeOf(document(order)).toEqualTypeOf<DocumentMessage<Order>>();
    expectTypeOf(command(order)).not.toExtend<EventMessage>();
    expectTypeOf(OrderPlaced(order)).not.toExtend<CommandMessage>();
    expectTypeOf(OrderPlaced(order)).toExtend<Message<Order>>();
    expect([command(order).kind, document(order).kind]).toEqual(['command', 'document']);
  });

  it('let a list hold any definitions', () => {
    const all: Definition[] = [
      OrderPlaced,
      defineCommand<number>('A', { topic: 'a', key: (n) => n.toFixed() }),
      defineEvent('B', { topic: 'a', schema: zodOrder }),
    ];
    expect(all.map(({ type }) => type)).toEqual(['OrderPlaced', 'A', 'B']);
  });

  it('of what arrives are those of JSON', () => {
    interface Sent {
      readonly at: Date;
      readonly tags: readonly string[];
      readonly pair: [Date, number];
      readonly nested: { money: { toJSON(): { cents: number } } }[];
      readonly id: string & { readonly brand: 'id' };
      readonly state: 'open' | 'closed' | null;
      readonly note?: string;
      readonly rest: unknown;
    }
    expectTypeOf<PayloadOf<EventDefinition<Sent>>>().toEqualTypeOf<{
      readonly at: string;
      readonly tags: readonly string[];
      readonly pair: [string, number];
      readonly nested: { money: { cents: number } }[];
      readonly id: string & { readonly brand: 'id' };
      readonly state: 'open' | 'closed' | null;
      readonly note?: string;
      readonly rest: unknown;
    }>();
  });
});
