import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FetchPosition, LogRecord } from '../../../src/broker/postgres/index.ts';
import { readTail } from '../../../src/broker/postgres/fetch-rows.ts';
import { PLAN_SETTINGS } from '../../../src/broker/postgres/read-pool.ts';
import { tailSql, type TailRow } from '../../../src/broker/postgres/tail-statement.ts';
import { acquire, appendTo, createLogFixture, payloadsOf, type LogFixture } from './fixture.ts';

const PARTITIONS = 3;
const at = (partition: number, offset: bigint): FetchPosition => ({ topic: 'orders', partition, offset });

/** Follows a topic as a consumer does. */
class Follower {
  readonly records: LogRecord[] = [];
  readonly #next = new Map<number, bigint>();
  readonly #log;

  constructor(log: ReturnType<LogFixture['openLog']>) {
    this.#log = log;
  }

  /** Waits until it has so many records. */
  async follow(count: number): Promise<void> {
    while (this.records.length < count) {
      const positions = Array.from({ length: PARTITIONS }, (_, n) => at(n, this.#next.get(n) ?? 0n));
      const found = await this.#log.fetch(positions, { maxWaitMs: 60_000 });
      for (const { partition, offset } of found) this.#next.set(partition, offset + 1n);
      this.records.push(...found);
    }
  }
}

/** Which statements the sessions of logs have run last. */
async function statements({ pool }: LogFixture): Promise<string[]> {
  const { rows } = await pool.query<{ query: string }>(
    `select query from pg_stat_activity where application_name = 'tailrace log' and datname = current_database()`,
  );
  return rows.map(({ query }) => query);
}

describe('a fetch at the end of partitions', () => {
  it('reads what comes by the statement for it, once it is told of', async () => {
    await using fixture = await createLogFixture();
    const writer = await acquire(fixture.openLog({ partitions: PARTITIONS }));
    await writer.partitionCount('orders');
    const follower = new Follower(fixture.openLog());
    await appendTo(writer, 1, await fixture.insert(1));
    await follower.follow(1);
    for (let count = 1; !(await statements(fixture)).some((text) => /left join lateral/.test(text)); count += 1) {
      expect(count).toBeLessThan(1_000);
      const [following, ids] = [follower.follow(count + 1), await fixture.insert(1)];
      await appendTo(writer, 1, ids);
      await following;
    }
    expect(follower.records.map(({ offset }) => Number(offset))).toEqual(follower.records.map((_, n) => n));
  });

  it('brings everything in order, whatever is appended', { timeout: 120_000 }, async () => {
    await using fixture = await createLogFixture();
    const writer = await acquire(fixture.openLog({ partitions: PARTITIONS }));
    await writer.partitionCount('orders');
    const follower = new Follower(fixture.openLog());
    const wanted = Array.from({ length: PARTITIONS }, (): number[] => []);
    let total = 0;
    const append = fc.record({
      partition: fc.nat({ max: PARTITIONS - 1 }),
      count: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.constant(70)),
      isLarge: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(append, { minLength: 1, maxLength: 12 }), async (appends) => {
        const following = follower.follow(total + appends.reduce((sum, { count }) => sum + count, 0));
        for (const { partition, count, isLarge } of appends) {
          const ids = await fixture.insert(count);
          if (isLarge) {
            const large = `update tailrace.outbox set payload = to_json(repeat('x', 5000)) where position = $1`;
            await fixture.pool.query(large, [ids[0]]);
          }
          await appendTo(writer, partition, ids);
          wanted[partition]?.push(...ids);
          total += count;
        }
        await following;
      }),
      { numRuns: 25 },
    );
    const { rows } = await fixture.pool.query<{ position: string; message_id: string }>(
      'select position, message_id from tailrace.outbox',
    );
    const idOf = new Map(rows.map(({ position, message_id }) => [Number(position), message_id]));
    wanted.forEach((ids, partition) => {
      const records = follower.records.filter((record) => record.partition === partition);
      expect(records.map(({ messageId }) => messageId)).toEqual(ids.map((id) => idOf.get(id)));
      expect(records.map(({ offset }) => Number(offset))).toEqual(ids.map((_, n) => n));
    });
  });

  it('stops at a message that cannot be seen yet, and brings it then', async () => {
    await using fixture = await createLogFixture();
    const writer = await acquire(fixture.openLog({ partitions: PARTITIONS }));
    await writer.partitionCount('orders');
    const follower = new Follower(fixture.openLog());
    await appendTo(writer, 0, await fixture.insert(1));
    await follower.follow(1);
    const client = await fixture.pool.connect();
    await client.query('begin');
    const { rows } = await client.query<{ position: string }>(
      `insert into tailrace.outbox (message_id, topic, key, type, payload)
       values (tailrace.uuid_v7(), 'orders', 'k', 'OrderPlaced', '"late"') returning position`,
    );
    const following = follower.follow(4);
    await appendTo(writer, 0, await fixture.insert(1));
    await appendTo(writer, 0, [Number(rows[0]?.position)]);
    await appendTo(writer, 0, await fixture.insert(1));
    await client.query('commit');
    client.release();
    await following;
    expect(payloadsOf(follower.records)).toEqual(['1', '1', '"late"', '1']);
  });
});

it('is planned to look everything up by index, and only where it is', async () => {
  await using fixture = await createLogFixture();
  const client = await fixture.pool.connect();
  for (const [name, value] of Object.entries(PLAN_SETTINGS)) await client.query(`set ${name} = ${value}`);
  await client.query(`prepare tail (int[], bigint[]) as ${tailSql('tailrace')}`);
  const writer = await acquire(fixture.openLog({ partitions: PARTITIONS }));
  await writer.partitionCount('orders');
  await appendTo(writer, 0, await fixture.insert(1_000));
  await appendTo(writer, 0, await fixture.insert(1));
  const { rows } = await client.query<{ 'QUERY PLAN': string }>(
    `explain (analyze, costs off, timing off, summary off) execute tail('{1}', '{1000}')`,
  );
  client.release();
  const lines = rows.map((row) => row['QUERY PLAN']);
  expect(lines.filter((line) => /Seq Scan|Bitmap|Hash|Merge/.test(line))).toEqual([]);
  const scans = lines.filter((line) => /Scan.* on outbox_/.test(line) && !line.includes('never executed'));
  expect(scans).toHaveLength(1);
});

describe('rows that were asked for at ends', () => {
  const limits = { maxRecords: 100, maxRecordsEach: 100, maxBytes: 10_000 };
  const positions = [at(0, 5n), at(1, 0n)];
  const row = (i: number, n: number | null, nth = 1, messageId: string | null = 'id'): TailRow => [
    ...([String(i), n === null ? null : String(n), null, messageId] as const),
    ...['event', 'T', 'k', '{}', '1', null, '0', null, null, null, null, String(nth)],
  ];

  it('are records in order, and say where partitions end', () => {
    const pass = readTail([row(1, 0), row(1, 1, 2), row(1, 2)], positions, limits);
    expect(pass?.records.map(({ offset }) => offset)).toEqual([5n, 6n, 7n]);
    expect([...(pass?.ends ?? [])]).toEqual([
      [0, 8n],
      [1, 0n],
    ]);
  });

  it('say nothing of an end behind as many entries as are read at once', () => {
    const pass = readTail(
      Array.from({ length: 8 }, (_, n) => row(1, n)),
      positions,
      limits,
    );
    expect(pass?.records).toHaveLength(8);
    expect([...(pass?.ends.keys() ?? [])]).toEqual([1]);
  });

  it.each([
    ['an entry begins further on', [row(1, 1)]],
    ['an entry is packed or long', [row(1, null, 0, null)]],
    ['a message is large, or cannot be seen yet', [row(1, 0, 1, null)]],
  ])('are none of its business where %s', (_what, rows) => {
    expect(readTail(rows, positions, limits)).toBeUndefined();
  });

  it.each([{ maxRecords: 2 }, { maxRecordsEach: 2 }, { maxBytes: 20 }])('or are more than %o', (less) => {
    const rows = [row(1, 0), row(1, 1), row(1, 2)];
    expect(readTail(rows, positions, { ...limits, ...less })).toBeUndefined();
  });
});
