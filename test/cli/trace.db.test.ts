import { expect, it } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer, type Consumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/message/definition.ts';
import type { EventMessage } from '../../src/message/message.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { run } from './kit.ts';
import { relayAll } from './relayed.ts';

const Counted = defineEvent<{ readonly n: number }>('Counted', { topic: 'counts' });
const Billed = defineEvent<{ readonly n: number }>('Billed', { topic: 'counts', key: () => 'A-1' });

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const headers = { traceparent: `00-${TRACE}-00f067aa0ba902b7-01` };
const TIME = expect.stringMatching(/^\d{4}-\d{2}-\d{2}T[\d:.]+Z$/);

async function publish({ pool }: TestDatabase, ...events: EventMessage[]): Promise<void> {
  const client = await pool.connect();
  await client.query('begin');
  await createOutbox().publish(client, events);
  await client.query('commit');
  client.release();
}

async function trace({ connectionString }: TestDatabase, id: string, ...options: string[]): Promise<string> {
  const { exitCode, out, err } = await run(['trace', id, ...options], { DATABASE_URL: connectionString });
  expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' });
  return out;
}

async function document(database: TestDatabase, id: string): Promise<object> {
  const out = await trace(database, id, '--json');
  expect(out).toMatch(/^[^\n]+\n$/);
  return JSON.parse(out) as object;
}

/** Runs consumers until each has done with so many records. */
async function consume({ connectionString }: TestDatabase, count: number, ...make: Make[]): Promise<void> {
  const log = postgresLog({ connectionString });
  const consumers = make.map((one) => one(log));
  try {
    for (const consumer of consumers) await consumer.start();
    for (const consumer of consumers) {
      await expect
        .poll(() => consumer.status().handled + consumer.status().dead + consumer.status().ignored, { timeout: 60_000 })
        .toBe(count);
    }
  } finally {
    await Promise.all(consumers.map((consumer) => consumer.stop())); // which stores their places
    await log.close();
  }
}

type Make = (log: ReturnType<typeof postgresLog>) => Consumer;

it('tells of messages in a compacted topic whether they are still there', async () => {
  await using database = await createTestDatabase();
  const env = { DATABASE_URL: database.connectionString };
  await run(['topics', 'create', 'counts', '--partitions', '1', '--compact', '--min-compaction-lag', 'none'], env);
  const messages = [Billed({ n: 1 }), Billed({ n: 2 }), Counted({ n: 3 })];
  await publish(database, ...messages);
  await relayAll(database, 1);
  await database.pool.query(`update tailrace.relay_batch set checkpoint = pg_current_snapshot()::text || ' '`);
  const maintained = await run(['maintain', '--json'], env);
  expect(JSON.parse(maintained.out)).toMatchObject({ compactedRecords: 1 });
  const [superseded, last, keyless] = messages.map(({ id }) => id);
  expect(await document(database, superseded!)).toMatchObject({ log: null, isDiscarded: false, isSuperseded: true });
  expect(await trace(database, superseded!)).toContain('keeps the last message of each key');
  const place = { topic: 'counts', partition: 0, appendedAt: TIME };
  expect(await document(database, last!)).toMatchObject({ log: { ...place, offset: '1' }, isSuperseded: false });
  expect(await document(database, keyless!)).toMatchObject({ log: { ...place, offset: '2' }, isSuperseded: false });
});

it('tells the way of one message as one story', async () => {
  await using database = await createTestDatabase();
  const { pool } = database;
  const message = Billed({ n: 2 }, { headers });
  await publish(database, Billed({ n: 1 }), message);

  expect(await document(database, message.id)).toEqual({
    messageId: message.id,
    traceId: TRACE,
    outbox: {
      position: '2',
      topic: 'counts',
      key: 'A-1',
      type: 'Billed',
      kind: 'event',
      transaction: expect.stringMatching(/^\d+$/),
      occurredAt: message.occurredAt.toISOString(),
      committedAt: null,
    },
    log: null,
    relay: null,
    isDiscarded: false,
    isSuperseded: false,
    groups: [],
  });
  const unread = await trace(database, message.id);
  expect(unread).toContain(' is not in the log yet\n');
  expect(unread).toContain(' no group in this database reads its topic\n');

  await relayAll(database, 1);
  await consume(
    database,
    2,
    (log) => createConsumer({ log, group: 'billing', database: pool }).on(Billed, () => undefined),
    (log) => createConsumer({ log, group: 'counting', database: pool }).on(Counted, () => undefined),
    (log) =>
      createConsumer({ log, group: 'mail', database: pool, retries: { attempts: 2, backoff: { initialMs: 1 } } }).on(
        Billed,
        ({ payload: { n } }) => {
          if (n === 2) throw new RangeError('no address\nsecond line');
        },
      ),
  );
  const later = Billed({ n: 3 }, { headers });
  await publish(database, Billed({ n: 2.5 }), later);
  await relayAll(database, 1);
  const nothing = { at: null, attempts: null, reason: null, error: null, before: null };
  expect(await document(database, message.id.toUpperCase())).toMatchObject({
    messageId: message.id,
    traceId: TRACE,
    log: { topic: 'counts', partition: 0, offset: '1', appendedAt: TIME },
    groups: [
      { ...nothing, group: 'billing', state: 'handled' },
      { ...nothing, group: 'counting', state: 'passed-over' },
      {
        group: 'mail',
        state: 'dead',
        at: TIME,
        attempts: 2,
        reason: 'HANDLER_FAILED',
        error: 'RangeError: no address',
        before: null,
      },
    ],
  });
  expect(await document(database, later.id)).toMatchObject({
    log: { offset: '3' },
    groups: ['billing', 'counting', 'mail'].map((group) => ({ ...nothing, group, state: 'waiting', before: '1' })),
  });

  const story = await trace(database, message.id);
  expect(story).toBe(
    [
      `message   ${message.id}`,
      `trace     ${TRACE}`,
      'type      Billed (event)',
      'topic     counts',
      'key       A-1',
      '',
      ...story.split('\n').slice(6),
    ].join('\n'),
  );
  expect(story).toMatch(/^\S+Z {2}happened\n {26}is in the outbox: position 2, transaction \d+\n/m);
  expect(story).toMatch(/^\S+Z {2}is in the log: counts\/0@1\n/m);
  expect(story).toMatch(/^ {26}billing: handled\n/m);
  expect(story).toMatch(/^ {26}counting: passed over: /m);
  expect(story).toMatch(/^\S+Z {2}mail: a dead letter after 2 attempts \(HANDLER_FAILED\): RangeError: no address\n/m);
  expect(await trace(database, later.id)).toContain('billing: not done yet, with 1 before it in its partition\n');
});

it('finds a message wherever it stands, also one whose id tells nothing of its time', async () => {
  await using database = await createTestDatabase();
  const { pool } = database;
  await pool.query(`select tailrace.publish('counts', n::text, 'Counted', '1') from generate_series(1, 300) n`);
  const foreign = ['00000000-0000-4000-8000-000000000000', 'ffffffff-ffff-4fff-bfff-ffffffffffff'];
  await publish(database, ...foreign.map((id) => Counted({ n: 0 }, { id })));
  await pool.query(`select tailrace.publish('counts', n::text, 'Counted', '1') from generate_series(1, 300) n`);
  await pool.query('delete from tailrace.outbox where position between 100 and 200'); // a gap to search across
  const { rows } = await pool.query<{ id: string; position: string }>(
    `select message_id as id, position from tailrace.outbox
      where position in (1, 2, 99, 201, 300, 303, 500, 602) or message_id = any($1)`,
    [foreign],
  );
  expect(rows).toHaveLength(10);
  for (const { id, position } of rows) expect(await document(database, id)).toMatchObject({ outbox: { position } });
});

it('tells that the relay has set a message aside', async () => {
  await using database = await createTestDatabase();
  const message = Counted({ n: 1 });
  await publish(database, message);
  await database.pool.query(
    `insert into tailrace.relay_dead_letter (position, seq, topic, reason, error) values (1, 1, 'counts', 'UNKNOWN_TOPIC', 'no such topic')`,
  );
  expect(await document(database, message.id)).toMatchObject({
    log: null,
    relay: { reason: 'UNKNOWN_TOPIC', attempts: 1, error: 'no such topic', setAsideAt: TIME },
  });
  const story = await trace(database, message.id);
  expect(story).toMatch(/Z {2}was set aside by the relay \(UNKNOWN_TOPIC\): no such topic\n/);
  expect(story).not.toContain('not in the log yet');
});

it('tells what groups have done about a message whose outbox is elsewhere', async () => {
  await using database = await createTestDatabase();
  const id = '019a0c6e-5d3a-7b1c-9f42-3d1e8c5a7b90';
  await database.pool.query(`insert into tailrace.consumer_group (name) values ('far'), ('other')`);
  await database.pool.query('insert into tailrace.processed_message values ($1, $2, 1)', [id, 'far']);
  expect(await document(database, id)).toMatchObject({
    outbox: null,
    log: null,
    groups: [{ group: 'far', state: 'handled' }],
  });
  expect(await trace(database, id)).toContain('is not in the outbox of this database\n');
});

it.each([
  ['a message that is not there', 1, ['019a0c6e-5d3a-7b1c-9f42-3d1e8c5a7b90'], /no message 019a0c6e-/],
  ['what is no UUID', 2, ['order-1'], /"order-1"\. Expected a UUID/],
  ['no id', 2, [], /missing required argument/],
  ['no time', 2, ['019a0c6e-5d3a-7b1c-9f42-3d1e8c5a7b90', '--timeout', '0'], /whole number from 1/],
])('refuses %s', async (_what, exitCode, args, message) => {
  await using database = await createTestDatabase();
  const outcome = await run(['trace', ...args], { DATABASE_URL: database.connectionString });
  expect(outcome).toMatchObject({ exitCode, out: '' });
  expect(outcome.err).toMatch(message);
  expect(outcome.err).toMatch(/^[^\n]+\n$/);
});

it('says so in JSON where JSON is asked for', async () => {
  await using database = await createTestDatabase();
  const { exitCode, out } = await run(['trace', '019a0c6e-5d3a-7b1c-9f42-3d1e8c5a7b90', '--json'], {
    DATABASE_URL: database.connectionString,
  });
  expect(exitCode).toBe(1);
  expect(JSON.parse(out)).toEqual({ error: { code: 'NOT_FOUND', message: expect.stringMatching(/no message 019a/) } });
});

it('gives a search up that takes too long', async () => {
  await using database = await createTestDatabase();
  const holder = await database.pool.connect();
  await holder.query('begin; lock table tailrace.outbox');
  const outcome = await run(['trace', '019a0c6e-5d3a-7b1c-9f42-3d1e8c5a7b90', '--timeout', '1'], {
    DATABASE_URL: database.connectionString,
  });
  await holder.query('rollback');
  holder.release();
  expect(outcome).toMatchObject({ exitCode: 1, out: '' });
  expect(outcome.err).toMatch(/longer than 1 seconds.*--timeout/);
});
