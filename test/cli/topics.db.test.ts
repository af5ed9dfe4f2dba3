import { expect, it } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer, type Consumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/message/definition.ts';
import { createRelay, pollingSource } from '../../src/relay/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { run } from './kit.ts';

const Counted = defineEvent<{ readonly n: number }>('Counted', { topic: 'counts' });

const cli = (database: TestDatabase, ...args: string[]) => run(args, { DATABASE_URL: database.connectionString });

async function document(database: TestDatabase, ...args: string[]): Promise<Record<string, unknown>> {
  const { exitCode, out, err } = await cli(database, ...args, '--json');
  expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' });
  return JSON.parse(out) as Record<string, unknown>;
}

/** Numbers messages from..to. */
async function publish({ pool }: TestDatabase, from: number, to: number): Promise<void> {
  await pool.query(
    `select tailrace.publish('counts', n::text, 'Counted', json_build_object('n', n)) from generate_series($1::int, $2::int) n`,
    [from, to],
  );
}

async function count({ pool }: TestDatabase, what: string): Promise<number> {
  const { rows } = await pool.query<{ count: number }>(`select count(*)::int from ${what}`);
  return rows[0]?.count ?? -1;
}

/** Of the partitions that the group has. */
async function epochs({ pool }: TestDatabase): Promise<number[]> {
  const { rows } = await pool.query<{ epoch: number }>(
    'select epoch::int from tailrace.consumer_cursor where owner is not null or next_offset > 0',
  );
  return rows.map(({ epoch }) => epoch);
}

const series = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, n) => from + n);
const sorted = (numbers: readonly number[]): number[] => [...numbers].sort((a, b) => a - b);

it('topics describe and delete: a topic is looked at, deleted while its relay runs, and begins anew', async () => {
  await using database = await createTestDatabase();
  const { connectionString, pool } = database;
  const log = postgresLog({ connectionString, partitions: 2 });
  const newRelay = () => createRelay({ source: pollingSource({ connectionString }), log });
  const handled: number[] = [];
  const newConsumer = (): Consumer =>
    createConsumer({ log, group: 'counters', database: pool, leaseMs: 3_000 }).on(Counted, ({ payload }) => {
      handled.push(payload.n);
    });
  let relay = newRelay();
  let consumer = newConsumer();
  try {
    await relay.start();
    await pool.query(`select tailrace.publish('others', n::text, 'Counted', '{}') from generate_series(1, 30) n`);
    await publish(database, 1, 20);
    await consumer.start();
    await expect.poll(() => sorted(handled)).toEqual(series(1, 20));

    // A look at it.
    expect(await document(database, 'topics', 'alter', 'counts', '--partitions', '3')).toMatchObject({ from: 2 });
    const described = await document(database, 'topics', 'describe', 'counts');
    expect(described).toMatchObject({ topic: 'counts', records: '20', retentionMs: null, retentionBytes: null });
    expect(described['groups']).toEqual([expect.objectContaining({ group: 'counters', members: 1, deadLetters: '0' })]);
    expect(described['growth']).toEqual([{ at: expect.any(String), partitionsBefore: 2 }]);
    expect((described['partitions'] as { partition: number; packedRecords: string }[])[2]).toEqual({
      ...{ partition: 2, start: '0', end: '0', records: '0', packedRecords: '0', packedBytes: '0', measuredBytes: '0' },
      lastAppend: null,
    });
    const { out } = await cli(database, 'topics', 'describe', 'counts');
    expect(out).toMatch(
      /^The topic counts was created at .* and keeps its records for ever\.\nPartitions from 2 on were added/,
    );
    expect(out).toMatch(/\nPARTITION .*\n +0 .*\n +1 .*\n +2 .*\n\nGROUP .*\ncounters +1 /);

    // Not by mistake, and not under its readers.
    expect(await cli(database, 'topics', 'delete', 'counts')).toMatchObject({ exitCode: 2, out: '' });
    const refused = await cli(database, 'topics', 'delete', 'counts', '--yes', '--json');
    expect([refused.exitCode, JSON.parse(refused.out)]).toMatchObject([1, { error: { code: 'GROUP_IN_USE' } }]);
    await consumer.stop();
    const former = await epochs(database);
    expect(await document(database, 'topics', 'delete', 'counts', '--yes')).toEqual({
      ...{ schema: 'tailrace', topic: 'counts', partitions: 3, records: '20', groups: ['counters'], parked: 0 },
    });
    for (const args of [['describe'], ['delete', '--yes']]) {
      const gone = await cli(database, 'topics', args[0]!, 'counts', ...args.slice(1), '--json');
      expect([gone.exitCode, JSON.parse(gone.out)]).toMatchObject([1, { error: { code: 'UNKNOWN_TOPIC' } }]);
    }
    expect(await count(database, 'tailrace.consumer_cursor')).toBe(0);
    await expect(log.fetch([{ topic: 'counts', partition: 0, offset: 1n }])).rejects.toMatchObject({
      code: 'UNKNOWN_TOPIC', // the log has read it before
    });

    // The relay kept its place in memory, and makes the topic anew; a relay that starts over knows what was appended.
    await publish(database, 21, 30);
    consumer = newConsumer();
    await consumer.start();
    await expect.poll(() => sorted(handled)).toEqual(series(1, 30));
    expect(Math.min(...(await epochs(database)))).toBeGreaterThan(Math.max(...former)); // who had one has none of these
    await relay.stop();
    relay = newRelay();
    await relay.start();
    await publish(database, 31, 40);
    await expect.poll(() => sorted(handled)).toEqual(series(1, 40));
    expect(await document(database, 'topics', 'describe', 'counts')).toMatchObject({ records: '20', growth: [] });

    // Under its readers, if that is asked for.
    expect(await document(database, 'topics', 'delete', 'counts', '--yes', '--force')).toMatchObject({ records: '20' });
    await publish(database, 41, 50);
    await expect.poll(() => sorted(handled)).toEqual(series(1, 50));
    await consumer.stop();
    await relay.stop();

    // What a relay that starts over needs stays until a checkpoint is behind it.
    await pool.query(`update tailrace.relay_batch set checkpoint = coalesce(checkpoint, 'x')`);
    await pool.query(`insert into tailrace.log_segment (partition, base, next_base, bytes, first_at, last_at)
      select id, 0, 1, 1, now(), now() from tailrace.log_partition`);
    await cli(database, 'topics', 'delete', 'counts', '--yes');

    // And nothing of another topic has gone with it.
    const ofOthers = 'e join tailrace.log_partition p on p.id = e.partition';
    expect(await count(database, `tailrace.log_entry ${ofOthers}`)).toBe(await count(database, 'tailrace.log_entry'));
    expect(await count(database, `tailrace.log_segment ${ofOthers}`)).toBe(2);
    expect(await count(database, 'tailrace.log_segment')).toBe(2);
    expect(await document(database, 'topics', 'describe', 'others')).toMatchObject({ records: '30' });
    const read = await log.fetch([0, 1].map((partition) => ({ topic: 'others', partition, offset: 0n })));
    expect(read).toHaveLength(30);
  } finally {
    await consumer.stop();
    await relay.stop();
    await log.close();
  }
});
