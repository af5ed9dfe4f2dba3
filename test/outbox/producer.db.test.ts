import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  createProducer,
  defineCommand,
  defineEvent,
  isTailraceError,
  type ProducerDatabase,
  type ProducerOptions,
} from '../../src/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { openPool } from '../servers/pool.ts';

const Measured = defineEvent<{ n: number }>('Measured', { topic: 'measures', key: ({ n }) => String(n % 3) });
const Reset = defineCommand<{ n: number }>('Reset', { topic: 'resets' });
/** Longer than any test takes: what resolves has not waited for it. */
const NEVER_MS = 3_600_000;

let database: TestDatabase;

beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());
beforeEach(() => database.pool.query('truncate tailrace.outbox').then(() => undefined));

const producer = (options: Partial<ProducerOptions> = {}) => createProducer({ database: database.pool, ...options });
const event = (n: number) => Measured({ n });

interface Stored {
  readonly n: number;
  readonly tx: string;
}

/** In the order of positions. */
async function stored(): Promise<Stored[]> {
  const { rows } = await database.pool.query<Stored>(
    `select (payload->>'n')::int as n, tx::text from tailrace.outbox order by position`,
  );
  return rows;
}

const numbers = async (): Promise<number[]> => (await stored()).map(({ n }) => n);

/** A lost connection, as pg reports it. */
const lost = (): Error => Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' });

/** The pool, with what `meddle` makes of queries of its clients: it is given how to run the query, and how many came before. */
function meddledWith(meddle: (run: () => Promise<unknown>, nth: number) => Promise<unknown>): ProducerDatabase {
  let count = 0;
  return {
    connect: async () => {
      const client = await database.pool.connect();
      const query = (config: pg.QueryConfig): Promise<unknown> => meddle(() => client.query(config), count++);
      return new Proxy(client, {
        get(target, property) {
          if (property === 'query') return query;
          const value: unknown = Reflect.get(target, property, target);
          return typeof value === 'function' ? (value.bind(target) as unknown) : value;
        },
      });
    },
  };
}

const codeOf = (error: unknown): string | undefined => (isTailraceError(error) ? error.code : undefined);

it('refuses a single client in place of a pool', () => {
  expect(() => producer({ database: new pg.Client() as never })).toThrow(/a single client. Expected a pg.Pool/);
});

describe('when a batch is committed', () => {
  it.each<[string, Partial<ProducerOptions>]>([
    ['once its first message has waited', { lingerMs: 1 }],
    ['at once', { lingerMs: 0 }],
    ['once it has messages enough', { lingerMs: NEVER_MS, maxBatchMessages: 3 }],
    ['once it has bytes enough', { lingerMs: NEVER_MS, maxBatchBytes: 3 * 'measures0Measured{}{"n":0}'.length }],
  ])('%s', async (_, options) => {
    await using some = producer(options);
    await Promise.all([some.publish(event(0)), some.publish(event(1)), some.publish(event(2))]);
    expect(await numbers()).toEqual([0, 1, 2]);
  });

  it('commits what has gathered in one transaction, in the order of the calls', async () => {
    await using some = producer({ lingerMs: NEVER_MS });
    const first = [event(0), event(1)];
    const calls = [some.publish(first), some.send(Reset({ n: 2 })), some.publish([]), some.publish(event(3))];
    await some.flush();
    expect((await Promise.all(calls))[0]).toBe(first);
    const rows = await stored();
    expect(rows.map(({ n }) => n)).toEqual([0, 1, 2, 3]);
    expect(new Set(rows.map(({ tx }) => tx)).size).toBe(1);
  });

  it('commits one batch after the other, and never half a call', async () => {
    await using some = producer({ lingerMs: 0, maxBatchMessages: 7 });
    const calls = Array.from({ length: 100 }, (_, n) =>
      some.publish([event(3 * n), event(3 * n + 1), event(3 * n + 2)]),
    );
    await Promise.all(calls);
    const rows = await stored();
    expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: 300 }, (_, n) => n));
    for (let n = 0; n < 300; n += 3) expect(new Set(rows.slice(n, n + 3).map(({ tx }) => tx)).size).toBe(1);
  });

  it('locks keys if asked to, and takes times and bytes', async () => {
    const Timed = defineEvent<Uint8Array>('Timed', { topic: 'timed', key: () => 'k' });
    await using some = producer({ strictKeyOrder: true });
    await some.publish([Timed(Uint8Array.of(1), { delayMs: 60_000 }), Timed(Uint8Array.of(2))]);
    const { rows } = await database.pool.query(
      `select payload_bytes, deliver_at > now() as later from tailrace.outbox order by position`,
    );
    expect(rows).toEqual([
      { payload_bytes: Buffer.of(1), later: true },
      { payload_bytes: Buffer.of(2), later: null },
    ]);
  });
});

describe('when the connection is lost', () => {
  it.each<[string, (run: () => Promise<unknown>) => Promise<unknown>]>([
    ['before the batch is sent', () => Promise.reject(lost())],
    ['after it was committed', (run) => run().then(() => Promise.reject(lost()))],
    ['while it is under way, and goes on', (run) => (void run().catch(() => undefined), Promise.reject(lost()))],
  ])('%s: stores it once', async (_, meddle) => {
    const failing = meddledWith((run, nth) => (nth < 2 ? meddle(run) : run()));
    await using some = producer({ database: failing, lingerMs: 0 });
    await Promise.all([some.publish([event(0), event(1)]), some.publish(event(2))]);
    await some.publish(event(3));
    expect(await numbers()).toEqual([0, 1, 2, 3]);
  });

  it('says so if nobody knows what became of a batch, and goes on with the next', async () => {
    const failing = meddledWith((run, nth) => (nth === 0 ? run().then(() => Promise.reject(new Error('?'))) : run()));
    await using some = producer({ database: failing });
    await expect(some.publish(event(0))).rejects.toMatchObject({ code: 'UNKNOWN_RESULT', retryable: false });
    await some.publish(event(1));
    expect(await numbers()).toEqual([0, 1]);
  });

  it('says what is wrong if nothing was sent', async () => {
    await using some = producer({ database: { connect: () => Promise.reject(lost()) }, timeoutMs: 50 });
    await expect(some.publish(event(0))).rejects.toMatchObject({ code: 'ECONNRESET' });
    await using other = producer({ database: { connect: () => new Promise<never>(() => undefined) }, timeoutMs: 30 });
    await expect(other.publish(event(0))).rejects.toMatchObject({ code: 'TIMEOUT', retryable: true });
  });

  it('stores everything of two producers once, whoever ends their sessions', async () => {
    const name = 'tailrace producers';
    const pool = openPool({ connectionString: database.connectionString, application_name: name });
    const [first, second] = [0, 1].map(() => producer({ database: pool, lingerMs: 0, maxBatchMessages: 10 }));
    const sent: Promise<unknown>[] = [];
    let ended = 0;
    for (let n = 0; n < 200; n += 2) {
      sent.push(first!.publish(event(n)), second!.publish(event(n + 1)));
      if (n % 40 !== 0) continue;
      await sent.at(-1); // so there is a session
      const { rowCount } = await database.pool.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = $1`,
        [name],
      );
      ended += rowCount ?? 0;
    }
    await Promise.all(sent);
    await Promise.all([first?.stop(), second?.stop(), pool.end()]);
    const found = await numbers();
    expect([...found].sort((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, n) => n));
    for (const parity of [0, 1]) {
      const own = found.filter((n) => n % 2 === parity);
      expect(own).toEqual([...own].sort((a, b) => a - b));
    }
    expect(ended).toBeGreaterThan(0);
  });
});

it('rejects the calls of a batch that fails, and no others', async () => {
  await database.pool.query(
    `alter table tailrace.outbox add constraint no_seven check (payload->>'n' <> '7') not valid`,
  );
  await using some = producer({ lingerMs: NEVER_MS, maxBatchMessages: 2 });
  const calls = [5, 6, 7, 8, 9, 10].map((n) => some.publish(event(n)));
  const outcomes = await Promise.allSettled(calls);
  await database.pool.query('alter table tailrace.outbox drop constraint no_seven');
  expect(outcomes.map(({ status }) => status === 'fulfilled')).toEqual([true, true, false, false, true, true]);
  expect(outcomes[2]).toMatchObject({ reason: { constraint: 'no_seven' } });
  expect(await numbers()).toEqual([5, 6, 9, 10]);
});

it('refuses what its buffer has no room for, and what cannot be sent', async () => {
  await using some = producer({ lingerMs: NEVER_MS, maxBufferedBytes: 60 });
  const calls = [some.publish(event(0)), some.publish(event(1))];
  await expect(some.publish(event(2))).rejects.toMatchObject({ code: 'BUFFER_FULL', retryable: true });
  await expect(some.publish([event(2), event(3), event(4)])).rejects.toMatchObject({ code: 'MESSAGE_TOO_LARGE' });
  await expect(some.publish(Reset({ n: 1 }) as never)).rejects.toMatchObject({ code: 'WRONG_KIND' });
  await some.flush();
  await Promise.all(calls);
  const last = some.publish(event(2));
  await some.flush();
  await last;
  expect(await numbers()).toEqual([0, 1, 2]);
});

it('commits what it was given when it is stopped, and takes nothing more', async () => {
  const some = producer({ lingerMs: NEVER_MS });
  const given = some.publish(event(0));
  await Promise.all([some.stop(), some.stop()]);
  await given;
  const late = await some.publish(event(1)).catch(codeOf);
  expect([late, await numbers()]).toEqual(['STOPPED', [0]]);
  await some.stop();
});

it('forgets producers that have been silent for a day', async () => {
  const old = '00000000-0000-7000-8000-000000000001';
  await database.pool.query(`insert into tailrace.producer values ($1, 1, now() - interval '2 days')`, [old]);
  await using some = producer();
  await some.publish(event(0));
  const { rows } = await database.pool.query('select from tailrace.producer where id = $1', [old]);
  expect(rows).toEqual([]);
});

it('is told of nothing that a crash of the server could undo, whatever the database does with other commits', async () => {
  const client = await database.pool.connect();
  try {
    await client.query('begin; set local synchronous_commit = off');
    await client.query('select tailrace.claim_batch(gen_random_uuid(), 1)');
    const { rows } = await client.query('show synchronous_commit');
    expect(rows).toEqual([{ synchronous_commit: 'on' }]);
  } finally {
    client.release(true);
  }
});
