import type pg from 'pg';
import { describe, expect, it } from 'vitest';
import { createTestDatabase } from '../servers/test-database.ts';

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

describe('publish', () => {
  it('adds a message to the outbox inside the transaction of its caller', async () => {
    await using database = await createTestDatabase();
    const client = await database.pool.connect();
    await client.query('begin');
    const before = await client.query<{ now: Date }>('select clock_timestamp() as now');
    const { rows } = await client.query<{ id: string; tx: string; now: Date }>(
      `select tailrace.publish('orders', 'order-1', 'OrderPlaced', '{"total": 12}', '{"trace": "abc"}', 'document') as id,
              pg_current_xact_id()::text as tx, clock_timestamp() as now`,
    );
    expect(await outbox(database.pool)).toEqual([]);
    await client.query('commit');
    client.release();

    const { id, tx, now } = rows[0]!;
    expect(id).toMatch(UUID_V7);
    expect(await outbox(database.pool)).toEqual([
      {
        position: '1',
        message_id: id,
        topic: 'orders',
        key: 'order-1',
        type: 'OrderPlaced',
        kind: 'document',
        headers: '{"trace": "abc"}',
        payload: '{"total": 12}',
        payload_bytes: null,
        occurred_at: expect.any(Date),
        tx,
      },
    ]);
    const [message] = await outbox(database.pool);
    const occurredAt = message!['occurred_at'] as Date;
    expect(occurredAt >= before.rows[0]!.now && occurredAt <= now).toBe(true);
  });

  it('leaves nothing when the transaction is rolled back', async () => {
    await using database = await createTestDatabase();
    const client = await database.pool.connect();
    await client.query('begin');
    await client.query(`select tailrace.publish('orders', null, 'OrderPlaced', '{}')`);
    await client.query('rollback');
    client.release();
    expect(await outbox(database.pool)).toEqual([]);
  });

  it('has defaults: an event, no key, no headers', async () => {
    await using database = await createTestDatabase();
    await database.pool.query(`select tailrace.publish('orders', null, 'OrderPlaced', 'null')`);
    expect(await outbox(database.pool)).toMatchObject([{ key: null, kind: 'event', headers: '{}', payload: 'null' }]);
  });

  it('keeps the payload as it was written, to the byte', async () => {
    await using database = await createTestDatabase();
    const payload = '{ "big": 12345678901234567890,  "z": 1.50, "a": "\\u0000 é", "a": 2 }';
    await database.pool.query(`select tailrace.publish('orders', null, 'OrderPlaced', $1)`, [payload]);
    expect(await outbox(database.pool)).toMatchObject([{ payload }]);
  });

  it('works for a caller whose search path hides everything', async () => {
    await using database = await createTestDatabase();
    const client = await database.pool.connect();
    await client.query(`create schema trap; create function trap.octet_length(text) returns int language sql as 'select 1 / 0';
      set search_path = trap, pg_catalog`);
    await client.query(`select tailrace.publish('orders', 'k', 'OrderPlaced', '{}')`);
    client.release(true);
    expect(await outbox(database.pool)).toHaveLength(1);
  });

  const sound = {
    topic: 'orders',
    key: 'order-1',
    type: 'OrderPlaced',
    payload: '{}',
    headers: '{}',
    kind: 'event',
  };

  it.each([
    ['no topic', { topic: null }, /the topic is null, expected 1 to 200 letters/],
    ['an empty topic', { topic: '' }, /the topic is ''/],
    ['a topic with a space', { topic: 'my orders' }, /the topic is 'my orders'/],
    ['a topic with a line break at the end', { topic: 'orders\n' }, /the topic is 'orders\n'/],
    ['a topic with a letter beyond ASCII', { topic: 'commandes-reçues' }, /the topic is/],
    ['a topic of 201 letters', { topic: 'x'.repeat(201) }, /the topic is/],
    ['no type', { type: null }, /the type has 0 characters/],
    ['an empty type', { type: '' }, /the type has 0 characters/],
    ['no payload', { payload: null }, /the payload is null/],
    ['no headers', { headers: null }, /the headers are not a json object/],
    ['headers in a list', { headers: '["a"]' }, /the headers are not a json object/],
    ['a header that is no string', { headers: '{"a": "b", "n": 1}' }, /a header is not a string/],
    ['a header that is null', { headers: '{"n": null}' }, /a header is not a string/],
    ['no kind', { kind: null }, /the kind is null/],
    ['an unknown kind', { kind: 'rumour' }, /the kind is 'rumour', expected event, command or document/],
  ])('refuses %s', async (_what, change, message) => {
    await using database = await createTestDatabase();
    const call = publish(database.pool, { ...sound, ...change });
    await expect(call).rejects.toMatchObject({ code: '22023', message: expect.stringMatching(message) });
    expect(await outbox(database.pool)).toEqual([]);
  });

  it.each([
    ['a topic of 200 characters of every kind', { topic: 'aZ09._-'.padEnd(200, 'x') }],
    ['a command', { kind: 'command' }],
    ['an empty key', { key: '' }],
  ])('accepts %s', async (_what, change) => {
    await using database = await createTestDatabase();
    await publish(database.pool, { ...sound, ...change });
    expect(await outbox(database.pool)).toMatchObject([change]);
  });

  it('accepts a message of 1,000,000 bytes, and not of one more', async () => {
    await using database = await createTestDatabase();
    const rest = Buffer.byteLength('orders' + 'order-1' + 'OrderPlaced' + '{}');
    const payload = `"${'é'.repeat(400_000)}"`.padEnd(600_000 - rest); // 400,000 of these characters have two bytes
    await publish(database.pool, { ...sound, payload });
    await expect(publish(database.pool, { ...sound, payload: `${payload} ` })).rejects.toMatchObject({
      code: '54000',
      message: expect.stringContaining('the message has 1000001 bytes'),
    });
    expect(await outbox(database.pool)).toHaveLength(1);
  });
});

describe('the outbox', () => {
  it.each([
    ['none', 'null, null'],
    ['two', `'{}', 'x'`],
  ])('refuses a message with %s of the payloads', async (_count, payloads) => {
    await using database = await createTestDatabase();
    const insert = database.pool.query(
      `insert into tailrace.outbox (message_id, topic, type, payload, payload_bytes)
       values (gen_random_uuid(), 'orders', 'OrderPlaced', ${payloads})`,
    );
    await expect(insert).rejects.toMatchObject({ code: '23514', constraint: 'outbox_one_payload' });
  });
});

describe('uuid_v7', () => {
  it('makes UUIDs of version 7 that sort in the order they were made', async () => {
    await using database = await createTestDatabase();
    const ids: string[] = [];
    for (let n = 0; n < 200; n += 1) {
      const { rows } = await database.pool.query<{ id: string }>('select tailrace.uuid_v7() as id');
      ids.push(rows[0]!.id);
    }
    for (const id of ids) expect(id).toMatch(UUID_V7);
    expect(ids).toEqual([...new Set(ids)].sort());
  });

  it('holds the time to the microsecond', async () => {
    await using database = await createTestDatabase();
    const micros = '(extract(epoch from clock_timestamp()) * 1000000)::bigint';
    for (let n = 0; n < 50; n += 1) {
      const { rows } = await database.pool.query<{ before: string; id: string; after: string }>(
        `select ${micros} as before, tailrace.uuid_v7() as id, ${micros} as after`,
      );
      const { before, id, after } = rows[0]!;
      expect(microsOf(id)).toBeGreaterThanOrEqual(Number(before) - 1);
      expect(microsOf(id)).toBeLessThanOrEqual(Number(after) + 1);
    }
  });

  it('makes no UUID twice', async () => {
    await using database = await createTestDatabase();
    const { rows } = await database.pool.query(
      'select count(distinct tailrace.uuid_v7())::int as count from generate_series(1, 20000)',
    );
    expect(rows).toEqual([{ count: 20_000 }]);
  });
});

describe('ensure_outbox_partitions', () => {
  it('has nothing to do after the migration, however often it is called', async () => {
    await using database = await createTestDatabase();
    const before = await outboxPartitions(database.pool);
    expect(before).toHaveLength(8);
    const calls = Array.from({ length: 4 }, () => ensureOutboxPartitions(database.pool));
    expect(await Promise.all(calls)).toEqual([0, 0, 0, 0]);
    expect(await outboxPartitions(database.pool)).toEqual(before);
  });

  it('creates as many as are missing ahead of the last position, without a hole', async () => {
    await using database = await createTestDatabase();
    await usePositionsTo(database.pool, 5_999_999);
    expect(await aheadOf(database.pool, 5_999_999)).toBe(5);
    expect(await ensureOutboxPartitions(database.pool)).toBe(3);
    expect(await aheadOf(database.pool, 5_999_999)).toBe(8);
    expect(await ensureOutboxPartitions(database.pool)).toBe(0);

    const bounds = await outboxPartitions(database.pool);
    expect(bounds[0]!.low).toBe(1);
    for (const [n, { low }] of bounds.slice(1).entries()) expect(low).toBe(bounds[n]!.high);
  });

  it('lets a message go over the edge of a partition', async () => {
    await using database = await createTestDatabase();
    await usePositionsTo(database.pool, 1_999_999);
    await database.pool.query(
      `select tailrace.publish('orders', null, 'OrderPlaced', '{}') from generate_series(1, 2)`,
    );
    const { rows } = await database.pool.query(
      'select position::int, tableoid::regclass::text as partition from tailrace.outbox order by position',
    );
    expect(rows).toEqual([
      { position: 2_000_000, partition: 'tailrace.outbox_1' },
      { position: 2_000_001, partition: 'tailrace.outbox_2000001' },
    ]);
  });

  it('may be called by two at once when there is work', async () => {
    await using database = await createTestDatabase();
    await usePositionsTo(database.pool, 5_999_999);
    const calls = await Promise.all([1, 2, 3].map(() => ensureOutboxPartitions(database.pool)));
    expect(calls.toSorted()).toEqual([0, 0, 3]);
  });
});

describe('ensure_processed_partitions', () => {
  it('routes the ids of now and of the coming weeks to weekly partitions, all others to the default one', async () => {
    await using database = await createTestDatabase();
    const { rows } = await database.pool.query<{ id: string }>('select tailrace.uuid_v7() as id');
    const now = await partitionOf(database.pool, rows[0]!.id);
    const weeks: string[] = [];
    for (const week of [0, 1, 2, 3, 4]) weeks.push(await partitionOf(database.pool, idAfterWeeks(week)));
    expect(weeks[0]).toBe(now);
    expect(new Set(weeks).size).toBe(5);
    for (const week of weeks) expect(week).toMatch(/^tailrace\.processed_message_w\d+$/);
    for (const id of [idAfterWeeks(-2), idAfterWeeks(9), '00000000-0000-4000-8000-000000000000']) {
      expect(await partitionOf(database.pool, id)).toBe('tailrace.processed_message_default');
    }
  });

  it('creates what is missing, once', async () => {
    await using database = await createTestDatabase();
    expect(await ensureProcessedPartitions(database.pool, 4)).toBe(0);
    const calls = await Promise.all([1, 2, 3].map(() => ensureProcessedPartitions(database.pool, 7)));
    expect(calls.toSorted()).toEqual([0, 0, 3]);
  });

  it('leaves a week to the default partition that holds some of it', async () => {
    await using database = await createTestDatabase();
    await partitionOf(database.pool, idAfterWeeks(6, 1));
    expect(await ensureProcessedPartitions(database.pool, 8)).toBe(3);
    expect(await partitionOf(database.pool, idAfterWeeks(6, 2))).toBe('tailrace.processed_message_default');
    expect(await partitionOf(database.pool, idAfterWeeks(7))).toMatch(/_w\d+$/);
    expect(await ensureProcessedPartitions(database.pool, 8)).toBe(0);
  });

  it('still refuses a message that was processed', async () => {
    await using database = await createTestDatabase();
    const insert = `insert into tailrace.processed_message values ($1, 'billing', 1)`;
    await database.pool.query(insert, [idAfterWeeks(0)]);
    await expect(database.pool.query(insert, [idAfterWeeks(0)])).rejects.toMatchObject({ code: '23505' });
  });
});

describe('functions that run with the rights of their owner', () => {
  it.each([
    ['ensure_outbox_partitions(0)', /partitions_ahead is 0, expected 1 to 100/],
    ['ensure_outbox_partitions(101)', /partitions_ahead is 101/],
    ['ensure_outbox_partitions(null)', /partitions_ahead is null/],
    ['ensure_outbox_partitions(8, 1)', /rows_per_partition is 1, expected 10000 to 1000000000/],
    ['ensure_outbox_partitions(8, null)', /rows_per_partition is null/],
    ['ensure_processed_partitions(1000000)', /weeks_ahead is 1000000, expected 0 to 52/],
    ['ensure_processed_partitions(null)', /weeks_ahead is null/],
  ])('refuse what would fill the server with tables: %s', async (call, message) => {
    await using database = await createTestDatabase();
    await expect(database.pool.query(`select tailrace.${call}`)).rejects.toMatchObject({ code: '22023', message });
  });

  it('are for nobody but their owner, until somebody is granted them', async () => {
    await using database = await createTestDatabase();
    const { rows } = await database.pool.query<{ name: string; open: boolean }>(
      `select proname as name, has_function_privilege('public', oid, 'execute') as open from pg_proc
        where pronamespace = 'tailrace'::regnamespace and prosecdef order by 1`,
    );
    expect(rows).toEqual([
      { name: 'begin_above_former_group', open: false },
      { name: 'claim_batch', open: false },
      { name: 'drop_processed_partitions', open: false },
      { name: 'ensure_outbox_partitions', open: false },
      { name: 'ensure_processed_partitions', open: false },
      { name: 'expire_processed_messages', open: false },
      { name: 'keep_late_processed', open: false },
      { name: 'remove_ephemeral_groups', open: false },
      { name: 'summarize_outbox', open: false },
    ]);
  });

  it('are not needed to publish: who may insert may call publish', async () => {
    await using database = await createTestDatabase();
    const role = `${database.name}_publisher`;
    const client = await database.pool.connect();
    try {
      await client.query(`begin; create role ${role}; grant usage on schema tailrace to ${role};
        grant insert (message_id, topic, key, type, kind, headers, payload) on tailrace.outbox to ${role};
        set local role ${role}`);
      await client.query(`select tailrace.publish('orders', null, 'OrderPlaced', '{}')`);
      await expect(client.query('select tailrace.ensure_outbox_partitions()')).rejects.toMatchObject({ code: '42501' });
    } finally {
      await client.query('rollback');
      client.release();
    }
  });
});

type Row = Record<string, unknown>;

async function outbox(pool: pg.Pool): Promise<Row[]> {
  const { rows } = await pool.query<Row>(
    `select position, message_id, topic, key, type, kind, headers::text, payload::text, payload_bytes, occurred_at, tx
     from tailrace.outbox order by position`,
  );
  return rows;
}

async function publish(pool: pg.Pool, message: Record<string, string | null>): Promise<void> {
  await pool.query(
    'select tailrace.publish(topic => $1, key => $2, type => $3, payload => $4, headers => $5, kind => $6)',
    ['topic', 'key', 'type', 'payload', 'headers', 'kind'].map((name) => message[name]),
  );
}

function microsOf(uuid: string): number {
  const hex = uuid.replaceAll('-', '');
  const fraction = Number.parseInt(hex.slice(13, 16), 16);
  return Number.parseInt(hex.slice(0, 12), 16) * 1000 + Math.ceil((fraction * 1000) / 4096);
}

async function ensureOutboxPartitions(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ created: number }>('select tailrace.ensure_outbox_partitions() as created');
  return rows[0]!.created;
}

async function usePositionsTo(pool: pg.Pool, position: number): Promise<void> {
  await pool.query(`select setval(pg_get_serial_sequence('tailrace.outbox', 'position'), $1)`, [position]);
}

/** The bounds of the outbox's partitions, in order: `low` is in a partition, `high` in the next. */
async function outboxPartitions(pool: pg.Pool): Promise<{ low: number; high: number }[]> {
  const { rows } = await pool.query<{ bounds: string }>(
    `select pg_get_expr(relpartbound, pg_class.oid) as bounds from pg_inherits join pg_class on pg_class.oid = inhrelid
     where inhparent = 'tailrace.outbox'::regclass`,
  );
  const bounds = rows.map((row) => [...row.bounds.matchAll(/\d+/g)].map(Number));
  return bounds.map(([low = 0, high = 0]) => ({ low, high })).sort((a, b) => a.low - b.low);
}

async function aheadOf(pool: pg.Pool, position: number): Promise<number> {
  return (await outboxPartitions(pool)).filter(({ low }) => low > position).length;
}

async function ensureProcessedPartitions(pool: pg.Pool, weeksAhead: number): Promise<number> {
  const { rows } = await pool.query<{ created: number }>('select tailrace.ensure_processed_partitions($1) as created', [
    weeksAhead,
  ]);
  return rows[0]!.created;
}

const WEEK_MS = 7 * 24 * 3600 * 1000;

/** A UUIDv7 of a time some weeks from now, ending in `tail`. */
function idAfterWeeks(weeks: number, tail = 0): string {
  const time = (Math.floor(Date.now() / WEEK_MS) + weeks) * WEEK_MS + WEEK_MS / 2; // mid-week: far from an edge
  const hex = time.toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-${tail.toString().padStart(12, '0')}`;
}

/** Inserts an id and says where it went. */
async function partitionOf(pool: pg.Pool, id: string): Promise<string> {
  const { rows } = await pool.query<{ partition: string }>(
    `insert into tailrace.processed_message values ($1, 'billing', 1) returning tableoid::regclass::text as partition`,
    [id],
  );
  return rows[0]!.partition;
}
