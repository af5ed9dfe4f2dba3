import { expect, it } from 'vitest';
import {
  createConsumer,
  type Consumer,
  type DeliveryContext,
  type EphemeralConsumerOptions,
} from '../../src/consumer/index.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

/** A process with a cache: what it was told, by key. */
class Instance {
  readonly told = new Map<string, Set<number>>();
  readonly consumer: Consumer<DeliveryContext>;

  constructor(stream: Stream, memberId: string, options: Partial<EphemeralConsumerOptions> = {}) {
    this.consumer = createConsumer({
      ...{ log: stream.log, group: 'cache', ephemeral: true, memberId, database: stream.pool },
      ...{ heartbeatMs: 50, cursorIntervalMs: 50, leaseMs: 300_000, retries: { attempts: 1 } },
      ...options,
    }).on(Counted, ({ payload: { key, n } }, context) => {
      expect('tx' in context).toBe(false);
      if (key === 'bad') throw new Error('not to be understood');
      this.told.set(key, (this.told.get(key) ?? new Set()).add(n));
    });
  }

  has(key: string, numbers: readonly number[]): boolean {
    return numbers.every((n) => this.told.get(key)?.has(n) === true);
  }
}

/** What is left of groups, and how many rows of messages. */
async function leftovers(stream: Stream): Promise<{ groups: string[]; rows: number }> {
  const groups = await stream.rows<{ name: string }>('select name from tailrace.consumer_group order by name');
  const [rest] = await stream.rows<{ rows: number }>(
    `select ((select count(*) from tailrace.consumer_member) + (select count(*) from tailrace.consumer_cursor)
       + (select count(*) from tailrace.parked_message) + (select count(*) from tailrace.suspect_attempt)
       + (select count(*) from tailrace.processed_message))::int as rows`,
  );
  return { groups: groups.map(({ name }) => name), rows: rest?.rows ?? -1 };
}

it('every process gets every message from its start on, and leaves nothing behind', async () => {
  await using stream = await Stream.open({ partitions: 2 });
  await stream.publish(...counts(['a', 'b'], 2)); // before their time
  const one = new Instance(stream, 'one');
  const two = new Instance(stream, 'two');
  await Promise.all([one.consumer.start(), two.consumer.start()]);
  expect((await leftovers(stream)).groups).toEqual(['cache@one', 'cache@two']);
  expect(one.consumer.status().group).toBe('cache@one');
  await stream.publish(...counts(['a', 'b', 'bad'], 3, 3));
  for (const { consumer } of [one, two])
    await until(() => consumer.status().dead === 3 && consumer.status().handled === 6);
  for (const { told } of [one, two])
    expect(Object.fromEntries(told)).toEqual({ a: new Set([3, 4, 5]), b: new Set([3, 4, 5]) });
  expect(await stream.rows('select from tailrace.processed_message')).toEqual([]);

  // Asleep for longer than its lease: somebody has removed its group.
  await until(async () => {
    await stream.pool.query(`update tailrace.consumer_member set expires_at = '-infinity' where member_id = 'one'`);
    const [removed] = await stream.rows<{ count: number }>('select tailrace.remove_ephemeral_groups() as count');
    return removed?.count === 1; // it was not heard between the two
  });
  await stream.publish(...counts(['a', 'b'], 2, 6));
  for (const each of [one, two]) await until(() => each.has('a', [3, 4, 5, 6, 7]) && each.has('b', [3, 4, 5, 6, 7]));
  expect(one.has('a', [2])).toBe(false);

  await Promise.all([one.consumer.stop(), two.consumer.stop()]);
  expect(await leftovers(stream)).toEqual({ groups: [], rows: 0 });
});

it('what a process left that was killed is removed by any consumer, and nothing else is', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  await stream.publish(...counts(['a'], 2));
  const killed = new Instance(stream, 'killed', { startFrom: 'earliest' });
  await killed.consumer.start();
  await until(() => killed.has('a', range(2)));
  // As `kill -9` leaves it: a copy of its rows under the name of a process that nobody has.
  await stream.pool.query(`
    insert into tailrace.consumer_group (name, ephemeral) values ('cache@gone', true), ('cache@stable', false);
    insert into tailrace.consumer_member (group_name, member_id, topics, expires_at)
      select 'cache@' || m, m, '{numbers}', now() - interval '1 s' from unnest('{gone,stable}'::text[]) m;
    insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset, owner)
      select 'cache@' || m, 'numbers', 0, 1, m from unnest('{gone,stable}'::text[]) m;
    insert into tailrace.suspect_attempt (group_name, topic, partition, record_offset, generation, attempts)
      select 'cache@' || m, 'numbers', 0, 1, 1, 1 from unnest('{gone,stable}'::text[]) m;
    insert into tailrace.parked_message (group_name, topic, partition, record_offset, message_id, type, kind, headers, occurred_at, dead, reason, attempts)
      select 'cache@' || m, 'numbers', 0, 1, gen_random_uuid(), 'Counted', 'event', '{}', now(), true, 'HANDLER_FAILED', 1
      from unnest('{gone,stable}'::text[]) m`);
  const other = stream.consumer().on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
  await other.start();
  expect((await leftovers(stream)).groups).toEqual(['cache@killed', 'cache@stable', 'counting']);
  for (const table of ['consumer_member', 'consumer_cursor', 'suspect_attempt', 'parked_message'])
    expect(await stream.rows(`select from tailrace.${table} where group_name = 'cache@gone'`)).toEqual([]);
  expect(await stream.rows(`select from tailrace.parked_message where group_name = 'cache@stable'`)).toHaveLength(1);
  await killed.consumer.stop();
});
