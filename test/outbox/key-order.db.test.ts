import type pg from 'pg';
import { describe, expect, it, vi } from 'vitest';
import { createOutbox, defineEvent } from '../../src/index.ts';
import { pollingSource } from '../../src/source/polling/polling-source.ts';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { Ledger, read } from '../source/ledger.ts';
import { randomFrom } from '../source/writers.ts';

vi.setConfig({ testTimeout: 180_000 }); // several waits, each of which may be long on a slow machine

const patient = { timeout: 50_000, interval: 20 };

const Noted = defineEvent<{ readonly key: string; readonly by: string }>('Noted', {
  topic: 'notes',
  key: ({ key }) => key,
});

/** How a writer publishes: none of them locks anything of its own. */
type Publish = (client: pg.PoolClient, key: string, by: string) => Promise<unknown>;

const plain = createOutbox();
const strict = createOutbox({ strictKeyOrder: true });
const STRICT: [string, Publish][] = [
  ['one message', (client, key, by) => strict.publish(client, Noted({ key, by }))],
  [
    'several messages',
    (client, key, by) => strict.publish(client, [Noted({ key: `${key} too`, by }), Noted({ key, by })]),
  ],
  [
    'the function',
    (client, key, by) =>
      client.query(`select tailrace.publish_in_key_order('notes', $1, 'Noted', json_build_object('by', $2::text))`, [
        key,
        by,
      ]),
  ],
  [
    'an insert of its own',
    async (client, key, by) => {
      await client.query(`select tailrace.lock_key('notes', $1)`, [key]);
      await client.query(
        `insert into tailrace.outbox (message_id, topic, key, type, payload)
          values (tailrace.uuid_v7(), 'notes', $1, 'Noted', json_build_object('by', $2::text))`,
        [key, by],
      );
    },
  ],
];

/** Who wrote the messages of a key, in the order in which polling brings them. */
async function polled(database: TestDatabase, key: string): Promise<string[]> {
  const ledger = new Ledger();
  const { rows } = await database.pool.query<{ position: string; key: string; by: string }>(
    `select position, key, payload ->> 'by' as by from tailrace.outbox`,
  );
  await read(
    pollingSource({ connectionString: database.connectionString }),
    ledger,
    () => ledger.ids.length >= rows.length,
  );
  const byPosition = new Map(rows.map((row) => [Number(row.position), row]));
  return ledger.ids.flatMap((id) => {
    const row = byPosition.get(id);
    return row?.key === key ? [row.by] : [];
  });
}

async function isBlocked({ pool }: TestDatabase, client: pg.PoolClient): Promise<boolean> {
  const { processID } = client as pg.PoolClient & { processID: number };
  const { rows } = await pool.query<{ blocked: boolean }>('select cardinality(pg_blocking_pids($1)) > 0 as blocked', [
    processID,
  ]);
  return rows[0]?.blocked === true;
}

/** Two clients of a database, each in a transaction. */
async function withTwo(
  database: TestDatabase,
  use: (first: pg.PoolClient, second: pg.PoolClient) => Promise<void>,
): Promise<void> {
  const first = await database.pool.connect();
  const second = await database.pool.connect();
  try {
    await first.query('begin');
    await second.query('begin');
    await use(first, second);
  } finally {
    first.release(true);
    second.release(true);
  }
}

describe('two writers of a key who lock nothing', () => {
  it('are polled in the order in which they wrote, though they committed the other way round', async () => {
    await using database = await createTestDatabase();
    await withTwo(database, async (first, second) => {
      await plain.publish(first, Noted({ key: 'k', by: 'wrote first' }));
      await plain.publish(second, Noted({ key: 'k', by: 'committed first' }));
      await second.query('commit');
      await first.query('commit');
    });
    expect(await polled(database, 'k')).toEqual(['wrote first', 'committed first']);
  });

  it.each(STRICT)('commit in the order in which they wrote, with strict key order: %s', async (_what, publish) => {
    await using database = await createTestDatabase();
    await withTwo(database, async (first, second) => {
      await publish(first, 'k', 'first');
      let isWritten = false;
      const writing = publish(second, 'k', 'second').finally(() => {
        isWritten = true;
      });
      await expect.poll(() => isBlocked(database, second), patient).toBe(true);
      expect(isWritten).toBe(false);
      await first.query('commit');
      await writing;
      await second.query('commit');
    });
    expect(await polled(database, 'k')).toEqual(['first', 'second']);
  });

  it('do not wait for each other where they have other keys, or none', async () => {
    await using database = await createTestDatabase();
    const Keyless = defineEvent('Keyless', { topic: 'notes' });
    await withTwo(database, async (first, second) => {
      await strict.publish(first, [Noted({ key: 'a', by: '1' }), Noted({ key: 'b', by: '1' })]);
      await strict.publish(first, [Keyless({}), Keyless({})]);
      await strict.publish(second, [Noted({ key: 'c', by: '2' }), Noted({ key: 'd', by: '2' })]);
      await strict.publish(second, [Keyless({})]);
      await second.query('commit');
      await first.query('commit');
    });
    expect(await polled(database, 'c')).toEqual(['2']);
  });

  it('take the locks of one call in one order, so that calls do not wait for each other in a circle', async () => {
    await using database = await createTestDatabase();
    const keys = ['a', 'b', 'c', 'd'];
    const writer = async (order: readonly string[]): Promise<void> => {
      const client = await database.pool.connect();
      try {
        for (let n = 0; n < 30; n++) {
          await client.query('begin');
          await strict.publish(
            client,
            order.map((key) => Noted({ key, by: '' })),
          );
          await client.query('commit');
        }
      } finally {
        client.release(true);
      }
    };
    await Promise.all([writer(keys), writer([...keys].reverse()), writer(['b', 'a', 'd', 'c'])]);
    const { rows } = await database.pool.query('select count(*)::int as count from tailrace.outbox');
    expect(rows).toEqual([{ count: 360 }]);
  });
});

it('with strict key order polling brings each key in the order of the WAL, whatever writers do (seeded)', async () => {
  await using database = await createTestDatabase();
  const { connectionString } = database;
  const ledgers = { wal: new Ledger(), polling: new Ledger() };
  const sources = { wal: walSource({ connectionString }), polling: pollingSource({ connectionString, pageRows: 30 }) };
  const stop = new AbortController();
  let mode = '';
  const reading = Promise.allSettled([
    read(
      sources.wal,
      ledgers.wal,
      (reader) => {
        mode = reader.status.mode;
        return false;
      },
      stop.signal,
    ),
    read(sources.polling, ledgers.polling, () => false, stop.signal),
  ]);
  await expect.poll(() => mode, patient).toBe('wal'); // so all that follows comes in the order of the WAL
  const seed = 61;
  await Promise.all(
    Array.from({ length: 6 }, async (_, n) => {
      const random = randomFrom(seed + n);
      const client = await database.pool.connect();
      try {
        for (let round = 0; round < 40; round++) {
          await client.query('begin');
          const keys = new Set(Array.from({ length: 3 }, () => `key-${Math.floor(random() * 5)}`));
          await strict.publish(
            client,
            [...keys].map((key) => Noted({ key, by: `${n}` })),
          );
          for (let wait = Math.floor(random() * 3); wait > 0; wait--) await client.query('select');
          await client.query(random() < 0.1 ? 'rollback' : 'commit');
        }
      } finally {
        client.release(true);
      }
    }),
  );
  const { rows } = await database.pool.query<{ position: string; key: string }>(
    'select position, key from tailrace.outbox',
  );
  await expect
    .poll(() => [ledgers.wal.ids.length, ledgers.polling.ids.length], patient)
    .toEqual([rows.length, rows.length]);
  stop.abort();
  await reading;
  const keyOf = new Map(rows.map(({ position, key }) => [Number(position), key]));
  const ofKey = (ids: readonly number[], key: string): number[] => ids.filter((id) => keyOf.get(id) === key);
  for (const key of new Set(keyOf.values())) {
    expect(ofKey(ledgers.polling.ids, key), `seed ${seed}, ${key}`).toEqual(ofKey(ledgers.wal.ids, key));
  }
});
