import fc from 'fast-check';
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  type EventMessage,
  type TransactionHandle,
  createOutbox,
  defineCommand,
  defineDocument,
  defineEvent,
  isTailraceError,
  migrate,
} from '../../src/index.ts';
import { type TestDatabase, createTestDatabase } from '../servers/test-database.ts';

interface Order {
  readonly orderId: string;
  readonly total: number;
}

const OrderPlaced = defineEvent<Order>('OrderPlaced', { topic: 'orders', key: ({ orderId }) => orderId });
const ReserveStock = defineCommand<{ sku: string }>('ReserveStock', { topic: 'stock' });
const StockList = defineDocument<string[]>('StockList', { topic: 'stock-replies' });
const Anything = defineEvent('Anything', { topic: 'things' });
const outbox = createOutbox();

let database: TestDatabase;
let client: pg.PoolClient;
let db: Kysely<object>;

beforeAll(async () => {
  database = await createTestDatabase();
  db = new Kysely({ dialect: new PostgresDialect({ pool: database.pool }) });
});

afterAll(() => database[Symbol.asyncDispose]());

beforeEach(async () => {
  await database.pool.query('truncate tailrace.outbox');
  client = await database.pool.connect();
  return () => {
    client.release(true);
  };
});

interface Row {
  readonly message_id: string;
  readonly kind: string;
  readonly type: string;
  readonly topic: string;
  readonly key: string | null;
  readonly headers: string;
  readonly payload: string | null;
  readonly payload_bytes: Buffer | null;
  readonly occurred_at: Date;
}

/** What others see, in the order of positions; JSON as the text that is stored. */
async function stored(): Promise<Row[]> {
  const result = await database.pool.query<Row>(
    `select message_id, kind, type, topic, key, headers::text, payload::text, payload_bytes, occurred_at
     from tailrace.outbox order by position`,
  );
  return result.rows;
}

async function keysStored(): Promise<(string | null)[]> {
  return (await stored()).map(({ key }) => key);
}

/** Runs an action in a transaction of the pg client, and commits. */
async function committed(action: (tx: pg.PoolClient) => Promise<unknown>): Promise<void> {
  await client.query('begin');
  await action(client);
  await client.query('commit');
}

function placed(orderId: string): EventMessage<Order> {
  return OrderPlaced({ orderId, total: 1 });
}

describe('what is written', () => {
  it.each([1, 2])('is every part of a message (%i in one call)', async (times) => {
    const message = OrderPlaced(
      { orderId: 'ä"\\7', total: 1.5 },
      { headers: { tenant: 'ü"\\' }, occurredAt: new Date('2026-02-03T04:05:06.789Z') },
    );
    await committed((tx) => outbox.publish(tx, Array<EventMessage>(times).fill(message)));
    const row: Row = {
      message_id: message.id,
      kind: 'event',
      type: 'OrderPlaced',
      topic: 'orders',
      key: 'ä"\\7',
      headers: '{"tenant":"ü\\"\\\\"}',
      payload: '{"orderId":"ä\\"\\\\7","total":1.5}',
      payload_bytes: null,
      occurred_at: message.occurredAt,
    };
    expect(await stored()).toEqual(Array(times).fill(row));
  });

  it('are events by publish, commands and documents by send', async () => {
    await committed(async (tx) => {
      await outbox.publish(tx, [placed('1'), Anything(null)]);
      await outbox.send(tx, [ReserveStock({ sku: 'a' }), StockList(['a'])]);
    });
    expect((await stored()).map(({ kind, type, key }) => [kind, type, key])).toEqual([
      ['event', 'OrderPlaced', '1'],
      ['event', 'Anything', null],
      ['command', 'ReserveStock', null],
      ['document', 'StockList', null],
    ]);
  });

  it('is given back', async () => {
    await committed(async (tx) => {
      const one = placed('1');
      const two = [placed('2')] as const;
      expect(await outbox.publish(tx, one)).toBe(one);
      expect(await outbox.publish(tx, two)).toBe(two);
    });
  });

  it('keeps headers named like members of Object.prototype', async () => {
    const headers = JSON.parse('{"__proto__":"p","constructor":"c","toString":"t"}') as Record<string, string>;
    await committed((tx) => outbox.publish(tx, Anything(1, { headers })));
    expect((await stored())[0]?.headers).toBe('{"__proto__":"p","constructor":"c","toString":"t"}');
  });

  it.each<[string, Buffer]>([
    ['every byte', Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))],
    ['nothing', Buffer.alloc(0)],
    ['JSON text with integers beyond 2^53', Buffer.from('{"id":9223372036854775807,"id":1}')],
  ])('are bytes as they were: %s', async (_, bytes) => {
    const part = new Uint8Array(Buffer.concat([Buffer.from('x'), bytes, Buffer.from('x')])).subarray(1, -1);
    await committed(async (tx) => {
      await outbox.publish(tx, Anything(part));
      await outbox.publish(tx, [Anything(part), Anything('json between'), Anything(part)]);
    });
    const rows = await stored();
    expect(rows.map(({ payload }) => payload)).toEqual([null, null, '"json between"', null]);
    expect(rows.map(({ payload_bytes }) => payload_bytes)).toEqual([bytes, bytes, null, bytes]);
  });

  it('is the text of any JSON value', async () => {
    const text = fc.string({ unit: 'grapheme' }).filter((part) => !part.includes('\0'));
    const payloads = fc.array(fc.jsonValue({ stringUnit: text, maxDepth: 4 }), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(payloads, async (values) => {
        await client.query('begin');
        const [first] = values;
        await outbox.publish(client, Anything(first));
        await outbox.publish(
          client,
          values.map((value) => Anything(value)),
        );
        const result = await client.query<{ payload: string }>(
          'select payload::text from tailrace.outbox order by position',
        );
        await client.query('rollback');
        expect(result.rows.map(({ payload }) => payload)).toEqual([first, ...values].map((v) => JSON.stringify(v)));
      }),
      { numRuns: 100 },
    );
  });

  it('may be handled from and until when it says, a delay counting from when it is written', async () => {
    const [expiresAt, deliverAt] = [new Date('2040-01-01T00:00:00.001Z'), new Date('2039-01-01T00:00:00.001Z')];
    const messages = [{ expiresAt, deliverAt }, { delayMs: 60_000 }, {}].map((own) => Anything(1, own));
    for (const given of [[messages[0], messages[1], messages[2]], [messages[0]], [messages[1]]]) {
      await client.query('begin');
      await outbox.publish(client, given as EventMessage[]);
      await client.query('commit');
    }
    const { rows } = await client.query<{
      expires_at: Date | null;
      deliver_at: Date | null;
      is_delayed: boolean | null;
    }>(
      `select expires_at, deliver_at, deliver_at between occurred_at + interval '50 seconds' and clock_timestamp() + interval '1 minute'
         as is_delayed from tailrace.outbox order by position`,
    );
    const [timed, delayed, plain] = [
      { expires_at: expiresAt, deliver_at: deliverAt, is_delayed: false },
      { expires_at: null, deliver_at: expect.any(Date) as Date, is_delayed: true },
      { expires_at: null, deliver_at: null, is_delayed: null },
    ];
    expect(rows).toEqual([timed, delayed, plain, timed, delayed]);
  });

  it('is nested as deep as the limit allows', async () => {
    let deep: unknown = [];
    for (let level = 1; level < 1_000; level++) deep = level % 2 === 0 ? [deep] : { deep };
    await committed((tx) => outbox.publish(tx, Anything(deep)));
    expect((await stored())[0]?.payload).toBe(JSON.stringify(deep));
  });

  it('goes to the schema that was named', async () => {
    await migrate(database.pool, { schema: 'other_outbox' });
    await committed((tx) => createOutbox({ schema: 'other_outbox' }).publish(tx, placed('1')));
    const result = await database.pool.query('select key from other_outbox.outbox');
    expect(result.rows).toEqual([{ key: '1' }]);
    expect(await stored()).toEqual([]);
  });

  it('needs no right but to insert, and none to position and tx', async () => {
    await client.query('begin');
    await client.query('create role writer; grant usage on schema tailrace to writer');
    await client.query(
      `grant insert (message_id, kind, type, topic, key, headers, payload, payload_bytes, occurred_at)
       on tailrace.outbox to writer`,
    );
    await client.query('set local role writer');
    await outbox.publish(client, placed('1'));
    await outbox.publish(client, [placed('2'), placed('3')]);
    await client.query('rollback');
  });
});

describe('many messages in one call', () => {
  it('take positions in their order, 10,000 of them, in one round trip', async () => {
    const keys = Array.from({ length: 10_000 }, (_, n) => String(n));
    const roundTrips = countRoundTrips();
    await client.query('begin');
    await outbox.publish(client, keys.map(placed));
    expect(roundTrips()).toBe(2);
    await client.query('commit');
    expect(await keysStored()).toEqual(keys);
  });

  it('take positions in their order while others write', async () => {
    const writer = async (name: string): Promise<void> => {
      const other = await database.pool.connect();
      await other.query('begin');
      const keys = Array.from({ length: 1_000 }, (_, n) => `${name} ${String(n)}`);
      for (let call = 0; call < 5; call++) {
        await outbox.publish(other, keys.slice(call * 200, (call + 1) * 200).map(placed));
      }
      await other.query('commit');
      other.release();
    };
    await Promise.all(['a', 'b', 'c', 'd'].map(writer));
    const keys = await keysStored();
    expect(keys.length).toBe(4_000);
    for (const name of ['a', 'b', 'c', 'd']) {
      const own = keys.filter((key) => key?.startsWith(name) === true);
      expect(own).toEqual(Array.from({ length: 1_000 }, (_, n) => `${name} ${String(n)}`));
    }
  });

  it('may be more than one statement holds', async () => {
    const large = 'x'.repeat(900_000);
    const messages = Array.from({ length: 40 }, (_, n) =>
      OrderPlaced({ orderId: String(n), total: 1 }, { headers: { large } }),
    );
    await client.query('begin');
    const roundTrips = countRoundTrips();
    await outbox.publish(client, messages);
    expect(roundTrips()).toBe(2);
    await client.query('commit');
    expect(await keysStored()).toEqual(messages.map(({ key }) => key));
  });

  it('may be none, which takes no round trip', async () => {
    await client.query('begin');
    const roundTrips = countRoundTrips();
    await outbox.publish(client, []);
    await outbox.send(client, []);
    expect(roundTrips()).toBe(0);
  });

  it('may be one, which takes one', async () => {
    await client.query('begin');
    const roundTrips = countRoundTrips();
    await outbox.publish(client, placed('1'));
    await outbox.publish(client, [placed('2')]);
    expect(roundTrips()).toBe(2);
  });
});

/** Counts from now on how often the server has said that it is ready for the next query. */
function countRoundTrips(): () => number {
  let count = 0;
  client.connection.on('readyForQuery', () => (count += 1));
  return () => count;
}

describe('a transaction of pg', () => {
  it('makes messages known when it commits, and not before', async () => {
    await client.query('begin');
    await outbox.publish(client, placed('1'));
    expect(await keysStored()).toEqual([]);
    await client.query('commit');
    expect(await keysStored()).toEqual(['1']);
  });

  it('makes nothing known when it rolls back', async () => {
    await client.query('begin');
    await outbox.publish(client, placed('1'));
    await client.query('rollback');
    expect(await keysStored()).toEqual([]);
  });

  it('makes nothing known of what was rolled back to a savepoint', async () => {
    await committed(async (tx) => {
      await outbox.publish(tx, placed('1'));
      await tx.query('savepoint before');
      await outbox.publish(tx, placed('2'));
      await tx.query('rollback to savepoint before');
      await outbox.publish(tx, placed('3'));
    });
    expect(await keysStored()).toEqual(['1', '3']);
  });
});

describe('a transaction of Kysely', () => {
  it('makes messages known when it commits, and not before', async () => {
    await db.transaction().execute(async (tx) => {
      await outbox.publish(tx, placed('1'));
      await outbox.publish(tx, [placed('2'), Anything(new Uint8Array([255]))]);
      await outbox.publish(tx, Anything(new Uint8Array([254])));
      expect(await stored()).toEqual([]);
    });
    expect(await keysStored()).toEqual(['1', '2', null, null]);
    expect((await stored()).map(({ payload_bytes }) => payload_bytes?.toString('hex'))).toEqual([
      undefined,
      undefined,
      'ff',
      'fe',
    ]);
  });

  it('makes nothing known when it rolls back', async () => {
    const failed = db.transaction().execute(async (tx) => {
      await outbox.publish(tx, placed('1'));
      throw new Error('the business said no');
    });
    await expect(failed).rejects.toThrow('the business said no');
    expect(await keysStored()).toEqual([]);
  });

  it('makes nothing known of what was rolled back to a savepoint', async () => {
    const tx = await db.startTransaction().execute();
    await outbox.publish(tx, placed('1'));
    const after = await tx.savepoint('before').execute();
    await outbox.publish(after, placed('2'));
    await after.rollbackToSavepoint('before').execute();
    await outbox.publish(tx, placed('3'));
    await tx.commit().execute();
    expect(await keysStored()).toEqual(['1', '3']);
  });

  it('that has failed is named as such', async () => {
    const failed = db.transaction().execute(async (tx) => {
      await outbox.publish(tx, placed('1'));
      await transactionFails(tx);
      await outbox.publish(tx, placed('2'));
    });
    await expect(failed).rejects.toMatchObject({ code: 'TRANSACTION_ABORTED', cause: { code: '25P02' } });
    expect(await keysStored()).toEqual([]);
  });
});

/** Publishes to a table that is broken on purpose: it has no such schema. */
async function transactionFails(tx: TransactionHandle): Promise<void> {
  await expect(createOutbox({ schema: 'nowhere' }).publish(tx, placed('x'))).rejects.toThrow();
}

describe('an error of ours', () => {
  const command = ReserveStock({ sku: 'a' }) as unknown as EventMessage;
  const broken: [string, EventMessage][] = [
    ['WRONG_KIND', command],
    ['INVALID_MESSAGE', OrderPlaced as unknown as EventMessage],
    ['INVALID_MESSAGE', { ...placed('1'), id: '7' }],
    ['INVALID_MESSAGE', { ...placed('1'), occurredAt: new Date(NaN) }],
    ['INVALID_TYPE', { ...placed('1'), type: '\0' }],
    ['INVALID_TOPIC', { ...placed('1'), topic: 'a b' }],
    ['INVALID_KEY', { ...placed('1'), key: '\ud800' }],
    ['INVALID_HEADER', { ...placed('1'), headers: { a: '\0' } }],
    ['INVALID_PAYLOAD', Anything(undefined)],
    ['INVALID_PAYLOAD', Anything({ a: [NaN] })],
    ['INVALID_PAYLOAD', Anything({ a: '\0' })],
    ['INVALID_PAYLOAD', Anything({ '\udfff': 1 })],
    ['MESSAGE_TOO_LARGE', Anything('x'.repeat(1_000_000))],
  ];

  it.each(broken)('%s leaves the outbox empty and the transaction usable', async (code, message) => {
    await client.query('begin');
    for (const messages of [message, [placed('before'), message, placed('after')]]) {
      const failure: unknown = await outbox.publish(client, messages).catch((error: unknown) => error);
      expect(isTailraceError(failure) && failure.code).toBe(code);
    }
    await client.query(
      "insert into tailrace.outbox (message_id, topic, type, payload) values (gen_random_uuid(), 'a', 'b', '1')",
    );
    await client.query('commit');
    expect((await stored()).map(({ type }) => type)).toEqual(['b']);
  });

  it('WRONG_KIND says why, both ways', async () => {
    await client.query('begin');
    await expect(outbox.publish(client, command)).rejects.toThrow(
      /publish was given the command ReserveStock\..*one receiver.*Use send/,
    );
    await expect(outbox.publish(client, StockList([]) as unknown as EventMessage)).rejects.toThrow(
      /publish was given the document StockList\./,
    );
    await expect(outbox.send(client, placed('1') as unknown as typeof command & { kind: 'command' })).rejects.toThrow(
      /send was given the event OrderPlaced\..*Use publish/,
    );
  });

  it('is thrown for a wrong handle, before the messages are looked at', async () => {
    const publish = (handle: unknown) => outbox.publish(handle as TransactionHandle, []);
    await expect(publish(database.pool)).rejects.toMatchObject({ code: 'NOT_IN_TRANSACTION' });
    await expect(publish(client)).rejects.toMatchObject({ code: 'NOT_IN_TRANSACTION' });
    await expect(publish(db)).rejects.toMatchObject({ code: 'NOT_IN_TRANSACTION' });
    await expect(publish({})).rejects.toMatchObject({ code: 'UNKNOWN_TRANSACTION_HANDLE' });
    await client.query('begin');
    await client.query('select 1/0').catch(() => undefined);
    await expect(outbox.publish(client, placed('1'))).rejects.toMatchObject({ code: 'TRANSACTION_ABORTED' });
    expect(await stored()).toEqual([]);
  });

  it('measures a message by the limit that was set', async () => {
    const small = createOutbox({ maxMessageBytes: 100 });
    const large = createOutbox({ maxMessageBytes: 3_000_000 });
    await committed(async (tx) => {
      await expect(small.publish(tx, Anything('x'.repeat(100)))).rejects.toMatchObject({
        code: 'MESSAGE_TOO_LARGE',
        details: { allowed: 100 },
      });
      await large.publish(tx, Anything('x'.repeat(2_000_000)));
    });
    expect((await stored())[0]?.payload?.length).toBe(2_000_002);
  });
});

async function dropPartitions(tx: pg.PoolClient): Promise<void> {
  const partitions = await tx.query<{ name: string }>(
    "select inhrelid::regclass as name from pg_inherits where inhparent = 'tailrace.outbox'::regclass",
  );
  for (const { name } of partitions.rows) await tx.query(`drop table ${name}`);
}

describe('an error of Postgres', () => {
  it('for a schema that is not there says how to migrate', async () => {
    await client.query('begin');
    const publish = createOutbox({ schema: 'nowhere' }).publish(client, placed('1'));
    await expect(publish).rejects.toMatchObject({ code: 'NOT_MIGRATED', cause: { code: '42P01' } });
    await expect(publish).rejects.toThrow(/tailrace migrate --schema nowhere/);
  });

  it('for a table that is not there says how to migrate', async () => {
    await client.query('begin');
    await client.query('drop table tailrace.outbox cascade');
    const publish = outbox.publish(client, [placed('1'), placed('2')]);
    await expect(publish).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
    await expect(publish).rejects.toThrow(/Run tailrace migrate, /);
  });

  it.each([1, 2])('for a partition that is not there says how to make one (%i in one call)', async (times) => {
    await client.query('begin');
    await dropPartitions(client);
    const messages = Array<EventMessage>(times).fill(placed('1'));
    await expect(outbox.publish(client, messages)).rejects.toMatchObject({
      code: 'OUTBOX_PARTITION_MISSING',
      retryable: true,
      cause: { code: '23514' },
    });
  });

  it.each([
    ['23514', 'alter table tailrace.outbox add constraint no_sevens check (key <> $$7$$)'],
    ['42P01', 'create trigger audit before insert on tailrace.outbox for each row execute function pg_temp.audit()'],
    ['42501', 'create role nobody_special; set local role nobody_special'],
  ])('comes through as it is: %s', async (code, sabotage) => {
    await client.query('begin');
    await client.query(
      `create function pg_temp.audit() returns trigger language plpgsql as
       'begin insert into tailrace.outbox_audit values (1); return new; end'`,
    );
    await client.query(sabotage);
    const failure: unknown = await outbox.publish(client, placed('7')).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(pg.DatabaseError);
    expect(failure).toHaveProperty('code', code);
  });
});

describe('createOutbox', () => {
  it.each<[string, unknown]>([
    ['INVALID_SCHEMA_NAME', { schema: 'a"b' }],
    ['INVALID_OPTION', { maxMessageBytes: 0 }],
    ['INVALID_OPTION', { maxMessageBytes: 1.5 }],
    ['INVALID_OPTION', { maxMessageBytes: 100_000_001 }],
    ['INVALID_OPTION', { maxMessageBytes: '5' }],
    ['INVALID_OPTION', { maxBytes: 5 }],
  ])('refuses %s %j', (code, options) => {
    expect(() => createOutbox(options as object)).toThrow(expect.objectContaining({ code }));
  });

  it('tells events from commands and documents by their types', () => {
    const compiles = (tx: TransactionHandle): unknown[] => [
      outbox.publish(tx, [placed('1'), Anything(1)]),
      outbox.send(tx, [ReserveStock({ sku: 'a' }), StockList([])]),
      // @ts-expect-error a command is sent
      outbox.publish(tx, ReserveStock({ sku: 'a' })),
      // @ts-expect-error one command among events
      outbox.publish(tx, [placed('1'), ReserveStock({ sku: 'a' })]),
      // @ts-expect-error a document is sent
      outbox.publish(tx, StockList([])),
      // @ts-expect-error an event is published
      outbox.send(tx, placed('1')),
      // @ts-expect-error a definition is called first
      outbox.publish(tx, OrderPlaced),
      // @ts-expect-error a pool is no transaction
      outbox.publish(database.pool, placed('1')),
      // @ts-expect-error a Kysely instance is no transaction
      outbox.publish(db, placed('1')),
    ];
    expect(compiles).toBeTypeOf('function');
  });
});
