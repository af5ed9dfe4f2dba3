import { describe, expect, it } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer, type Consumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/message/definition.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { run } from './kit.ts';
import { relayAll } from './relayed.ts';

const Counted = defineEvent<{ readonly n: number }>('Counted', { topic: 'counts' });

async function cli({ connectionString }: TestDatabase, ...args: string[]): Promise<string> {
  const { exitCode, out, err } = await run(args, { DATABASE_URL: connectionString });
  expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' });
  return out;
}

async function document(database: TestDatabase, ...args: string[]): Promise<unknown> {
  const out = await cli(database, ...args, '--json');
  expect(out).toMatch(/^[^\n]+\n$/);
  return JSON.parse(out);
}

async function publish({ pool }: TestDatabase, count: number): Promise<void> {
  await pool.query(
    `select tailrace.publish('counts', 'key', 'Counted', json_build_object('n', n)) from generate_series(1, $1::int) n`,
    [count],
  );
}

it('topics: creates one, and lists partitions, offsets and sizes', async () => {
  await using database = await createTestDatabase();
  expect(await cli(database, 'topics')).toMatch(/no topics yet/);
  expect(await document(database, 'topics', 'create', 'counts', '--partitions', '3')).toEqual({
    schema: 'tailrace',
    topic: 'counts',
    partitions: 3,
    created: true,
  });
  const again = ['topics', 'create', 'counts', '--partitions', '3'];
  expect(await cli(database, ...again)).toBe(
    'The topic counts exists already with 3 partitions, and was left as it is. tailrace topics describe counts shows it; tailrace topics alter counts changes it.\n',
  );
  expect(await cli(database, ...again, '--retention', 'none')).toMatch(/3 partitions, and keeps from now on what was/);
  expect(await document(database, ...again)).toMatchObject({ partitions: 3, created: false });
  expect(await cli(database, 'topics', 'create', 'others', '--partitions', '2')).toMatch(/others was created with 2 p/);
  await cli(database, 'topics', 'delete', 'others', '--yes');
  await publish(database, 12);
  await relayAll(database);
  const { topics } = (await document(database, 'topics')) as { topics: { partitions: { end: string }[] }[] };
  expect(topics).toEqual([
    { topic: 'counts', records: '12', lastAppend: expect.stringMatching(/^\d{4}-.*Z$/), partitions: expect.any(Array) },
  ]);
  expect(topics[0]!.partitions.map(({ end }) => end).sort()).toEqual(['0', '0', '12']);
  expect(await cli(database, 'topics', 'list')).toMatch(/^TOPIC .*\ncounts +3 +12 +\d{4}-.*:0-12/);
});

const NOT_COMPACTED = { compact: false, minCompactionLagMs: 3_600_000, deleteRetentionMs: 86_400_000 };
const NOTHING_DONE = { deletedEntries: 0, packedRecords: 0, droppedPartitions: 0, compactedRecords: 0 };

it('topics create, alter: compacts a topic, and no longer', async () => {
  await using database = await createTestDatabase();
  await cli(database, 'topics', 'create', 'counts', '--partitions', '1', '--compact', '--min-compaction-lag', 'none');
  const kept = { schema: 'tailrace', topic: 'counts', retentionMs: null, retentionBytes: null };
  expect(await document(database, 'topics', 'alter', 'counts', '--delete-retention', '2d')).toEqual({
    ...kept,
    ...{ compact: true, minCompactionLagMs: 0, deleteRetentionMs: 172_800_000 },
  });
  expect(await cli(database, 'topics', 'alter', 'counts', '--min-compaction-lag', '90s')).toMatch(
    /keeps its records for ever, once they are older than 90s only the last of each key\.\n$/,
  );
  expect(await document(database, 'topics', 'alter', 'counts', '--no-compact')).toMatchObject({ compact: false });
});

it('topics alter: sets what a topic keeps; maintain removes the rest', async () => {
  await using database = await createTestDatabase();
  await cli(database, 'topics', 'create', 'counts', '--partitions', '1', '--retention', '7d');
  const kept = await document(database, 'topics', 'alter', 'counts', '--retention-bytes', '10GB');
  expect(kept).toEqual({
    schema: 'tailrace',
    topic: 'counts',
    retentionMs: 604_800_000,
    retentionBytes: 1e10,
    ...NOT_COMPACTED,
  });
  expect(await cli(database, 'topics', 'alter', 'counts', '--retention', '1s', '--retention-bytes', 'none')).toBe(
    'The topic counts keeps its records for 1s.\n',
  );
  await publish(database, 3);
  await relayAll(database);
  await database.pool.query(`update tailrace.log_entry set appended_at = appended_at - interval '1 minute'`);
  const done = { schema: 'tailrace', isBusy: false, isOwner: true, waiting: 0, reason: null, ...NOTHING_DONE };
  expect(await document(database, 'maintain')).toEqual(done);
  expect(await cli(database, 'maintain')).toMatch(/nothing is left to do/);
  expect(await cli(database, 'topics')).toMatch(/\ncounts +1 +0 .*0:3-3/);
  const both = await run(['topics', 'alter', 'counts', '--retention', '1d', '--partitions', '2'], {
    DATABASE_URL: database.connectionString,
  });
  expect(both).toMatchObject({ exitCode: 2, err: expect.stringMatching(/not both/) });
});

it('topics alter: gives a topic more partitions, and no fewer', async () => {
  await using database = await createTestDatabase();
  await cli(database, 'topics', 'create', 'counts', '--partitions', '3');
  expect(await cli(database, 'topics', 'alter', 'counts', '--partitions', '4')).toMatch(
    /has 4 partitions now; it had 3/,
  );
  expect(await document(database, 'topics', 'alter', 'counts', '--partitions', '8')).toEqual({
    schema: 'tailrace',
    topic: 'counts',
    from: 4,
    partitions: 8,
  });
  const env = { DATABASE_URL: database.connectionString };
  const refused = await run(['topics', 'alter', 'counts', '--partitions', '8', '--json'], env);
  expect(JSON.parse(refused.out)).toMatchObject({
    error: { code: 'INVALID_OPTION', message: expect.stringMatching(/more than 8/) as string },
  });
  expect(refused.exitCode).not.toBe(0);
  expect(await run(['topics', 'alter', 'nothing', '--partitions', '8'], env)).toMatchObject({ exitCode: 1 });
  expect(await run(['topics', 'alter', 'counts'], env)).toMatchObject({ exitCode: 2 });
});

it.each([
  [
    'another number of partitions',
    2,
    ['create', 'counts', '--partitions', '4'],
    /exists with 3 partitions, and 4 were asked for.*topics alter counts.*topics describe counts/,
  ],
  ['a bad name', 2, ['create', 'my topic'], /Not a name for a topic/],
  ['a lag without compaction', 2, ['create', 'x', '--min-compaction-lag', '1h'], /Add --compact/],
  ['no partitions', 2, ['create', 'x', '--partitions', '0'], /whole number from 1/],
  ['an unknown verb', 2, ['destroy', 'counts'], /unknown command 'destroy' of tailrace topics/],
  ['a deletion by mistake', 2, ['delete', 'counts'], /add --yes/],
])('topics refuses %s', async (_what, exitCode, args, message) => {
  await using database = await createTestDatabase();
  await cli(database, 'topics', 'create', 'counts', '--partitions', '3');
  const outcome = await run(['topics', ...args], { DATABASE_URL: database.connectionString });
  expect(outcome).toMatchObject({ exitCode, out: '' });
  expect(outcome.err).toMatch(message);
});

it('groups: moves one to another place, and forgets it', async () => {
  await using database = await createTestDatabase();
  await publish(database, 5);
  await relayAll(database, 1);
  const log = postgresLog({ connectionString: database.connectionString });
  const seen: string[] = [];
  const make = (): Consumer =>
    createConsumer({ log, group: 'g', database: database.pool }).on(Counted, ({ payload: { n } }, { isReplay }) => {
      seen.push(`${n}${isReplay ? ' again' : ''}`);
    });
  const first = make();
  await first.start();
  await expect.poll(() => first.status().handled, { timeout: 60_000 }).toBe(5);
  await first.stop();
  const seek = ['groups', 'seek', 'g', '--topic', 'counts'];
  const moved = {
    group: 'g',
    topic: 'counts',
    partitions: [{ partition: 0, from: '5', to: '3', again: '2', skipped: '0' }],
  };
  expect(await document(database, ...seek, '--by', '-2', '--dry-run')).toEqual({ ...moved, dryRun: true });
  expect(await cli(database, ...seek, '--to-offset', '3', '--dry-run')).toMatch(
    /FROM.*\n +0 +5 +3 +2 +0\nNothing was changed/,
  );
  expect(await document(database, ...seek, '--by', '-2')).toEqual({ ...moved, dryRun: false });
  const second = make();
  await second.start();
  await expect.poll(() => seen.length, { timeout: 60_000 }).toBe(7);
  await second.stop();
  expect(seen.slice(5)).toEqual(['4 again', '5 again']);
  const env = { DATABASE_URL: database.connectionString };
  const refused = await run([...seek, '--to-offset', '6', '--json'], env);
  expect(refused).toMatchObject({
    exitCode: 1,
    out: expect.stringMatching(/OFFSET_OUT_OF_RANGE.*expected 0 to 5/) as string,
  });
  expect(await run([...seek, '--to-time', '2999-01-01'], env)).toMatchObject({ exitCode: 2 });
  expect(await run([...seek, '--to-earliest', '--by', '1'], env)).toMatchObject({ exitCode: 2 });
  expect((await run(['groups', 'seek', 'no', '--topic', 'counts', '--to-latest'], env)).err).toMatch(/no group "no"/);

  const third = make();
  await third.start();
  const kept = await run(['groups', 'delete', 'g', '--json'], env);
  expect(kept).toMatchObject({ exitCode: 1, out: expect.stringMatching(/GROUP_IN_USE.*has a member/) as string });
  await third.stop();
  expect(await document(database, 'groups', 'delete', 'g')).toEqual({
    ...{ group: 'g', members: 0, places: 1, processed: 7, parked: 0, stored: 0 },
  });
  expect(await cli(database, 'groups')).toMatch(/no consumer groups yet/);
  const anew = make();
  await anew.start();
  await expect.poll(() => anew.status().handled, { timeout: 60_000 }).toBe(5);
  expect(await cli(database, 'groups', 'delete', 'g', '--force')).toMatch(
    /is gone: 1 places, 5 handled, 0 stored and 0 set aside/,
  );
  await expect.poll(() => seen.length, { timeout: 60_000 }).toBeGreaterThanOrEqual(17); // it begins anew
  await anew.stop();
  expect(seen.slice(7, 17)).toEqual(['1', '2', '3', '4', '5', '1', '2', '3', '4', '5']);
  await log.close();
});

describe('a group that is behind', () => {
  it('shows members, owners, cursors and lag, and its dead letters', async () => {
    await using database = await createTestDatabase();
    expect(await cli(database, 'groups')).toMatch(/no consumer groups yet/);
    expect(await cli(database, 'dead-letters')).toBe('There are none.\n');
    await publish(database, 5);
    await relayAll(database, 2);
    const log = postgresLog({ connectionString: database.connectionString });
    const consumer = createConsumer({
      log,
      group: 'g',
      database: database.pool,
      memberId: 'm1',
      retries: { attempts: 2, backoff: { initialMs: 1 } },
    }).on(Counted, ({ payload: { n } }) => {
      if (n === 3) throw new Error('three is too much');
    });
    await consumer.start();
    await expect.poll(() => consumer.status().dead + consumer.status().handled, { timeout: 60_000 }).toBe(5);
    await expect
      .poll(async () => (await document(database, 'groups')) as object, { timeout: 60_000 })
      .toEqual({
        schema: 'tailrace',
        groups: [
          {
            ...{ group: 'g', generation: 1, members: 1, deadLetters: '1', lag: '0', lagSeconds: 0 },
            ...{ partitionsBeyondEnd: 0, topics: ['counts'], unknownTopics: [] },
          },
        ],
      });
    const alive = (await document(database, 'groups', 'describe', 'g')) as { members: unknown[]; partitions: object[] };
    expect(alive.members).toEqual([
      {
        member: 'm1',
        host: expect.stringMatching(/./),
        topics: ['counts'],
        leaseSeconds: expect.any(Number),
        staticLeaseSeconds: null,
        canary: false,
        inHand: null,
        joinedAt: expect.stringMatching(/^\d{4}-.*Z$/),
      },
    ]);
    expect(alive.partitions).toHaveLength(2);
    for (const partition of alive.partitions)
      expect(partition).toMatchObject({
        owner: 'm1',
        wanted: 'm1',
        epoch: '1',
        generation: 1,
        lag: '0',
        lagSeconds: 0,
      });
    await consumer.stop();
    await log.close();

    await publish(database, 4);
    await relayAll(database, 2);
    await database.pool.query(
      `update tailrace.log_entry set appended_at = appended_at - interval '1 hour' where base >= 5`,
    );
    const { members, partitions } = (await document(database, 'groups', 'show', 'g')) as {
      members: unknown[];
      partitions: { lag: string; lagSeconds: number; owner: string | null; nextOffset: string; end: string }[];
    };
    expect(members).toEqual([]);
    const behind = partitions.find(({ lag }) => lag !== '0');
    expect(behind).toMatchObject({ owner: null, nextOffset: '5', end: '9', lag: '4' });
    expect(behind?.lagSeconds).toBeGreaterThanOrEqual(3_600);
    expect(behind?.lagSeconds).toBeLessThan(3_700);
    expect(await cli(database, 'groups', 'show', 'g')).toMatch(/No member is there[^]*counts +\d +5 +9 +4 +36\d\d/);
    expect(await cli(database, 'groups', 'list')).toMatch(/\ng +0 +4 +36\d\d(\.\d)? +1\n/);

    const list = (await document(database, 'dead-letters', 'list', '--group', 'g', '--topic', 'counts')) as {
      deadLetters: { place: string }[];
    };
    expect(list.deadLetters).toMatchObject([
      { group: 'g', type: 'Counted', key: 'key', dead: true, reason: 'HANDLER_FAILED', attempts: 2 },
    ]);
    const { place } = list.deadLetters[0]!;
    expect(place).toMatch(/^counts\/[01]@2$/);
    expect(await cli(database, 'dead-letters')).toContain('three is too much');
    expect(await document(database, 'dead-letters', 'show', 'g', place)).toMatchObject({ place, payload: { n: 3 } });
    expect(await cli(database, 'dead-letters', 'show', 'g', place)).toMatch(
      /\{"n" : 3\}\n\nError: three is too much\n/,
    );
    await database.pool.query(`insert into tailrace.consumer_group (name) values ('other')`);
    expect(await document(database, 'dead-letters', 'list', '--group', 'other')).toMatchObject({ deadLetters: [] });
    const none = await document(database, 'dead-letters', 'retry', '--group', 'other', '--all');
    expect(none).toMatchObject({ deadLetters: [] });
    const asked = ['retry', '--group', 'g', '--reason', 'HANDLER_FAILED', '--dry-run'];
    expect(await document(database, 'dead-letters', ...asked)).toMatchObject({
      dryRun: true,
      deadLetters: [{ place }],
    });
    expect(await cli(database, 'dead-letters', 'edit-and-redrive', 'g', place, '--payload', '{"n":4}')).toMatch(
      /\ng +counts\/[01]@2 +Counted +key +HANDLER_FAILED\n\n1 to be handled again\.\n/,
    );
    expect(await document(database, 'dead-letters')).toMatchObject({ deadLetters: [] });
    expect(await document(database, 'dead-letters', 'list', '--all')).toMatchObject({ deadLetters: [{ place }] });
    expect(await document(database, 'dead-letters', 'show', 'g', place)).toMatchObject({
      attempts: 0,
      payload: { n: 4 },
    });
    await database.pool.query('update tailrace.parked_message set dead = true');
    expect(await cli(database, 'dead-letters', 'discard', '--group', 'g', '--all')).toContain('1 discarded.\n');
    expect(await document(database, 'dead-letters', 'list', '--all')).toMatchObject({ deadLetters: [] });
  });

  it('is told where its place is beyond the end of the log', async () => {
    await using database = await createTestDatabase();
    await publish(database, 2);
    await relayAll(database, 1);
    await database.pool.query(`insert into tailrace.consumer_group (name) values ('ahead');
      insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset) values ('ahead', 'counts', 0, 3)`);
    expect(await document(database, 'groups')).toMatchObject({
      groups: [{ group: 'ahead', lag: '0', partitionsBeyondEnd: 1 }],
    });
    expect(await document(database, 'groups', 'show', 'ahead')).toMatchObject({
      partitions: [{ nextOffset: '3', end: '2', isBeyondEnd: true }],
    });
    const said = /beyond the end of the log in one partition[^]*tailrace groups seek/;
    expect(await cli(database, 'groups')).toMatch(said);
    expect(await cli(database, 'groups', 'show', 'ahead')).toMatch(said);
    await database.pool.query('update tailrace.consumer_cursor set next_offset = 2');
    expect(await cli(database, 'groups')).not.toMatch(said);
    expect(await cli(database, 'groups', 'show', 'ahead')).not.toMatch(said);
  });

  it('has no lag that could be known where the log is in another database', async () => {
    await using database = await createTestDatabase();
    await database.pool.query(`insert into tailrace.consumer_group (name) values ('far');
      insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset, stored_from, stored_to) values
        ('far', 'orders', 0, 7, 5, 10)`);
    expect(await document(database, 'groups')).toMatchObject({
      groups: [{ group: 'far', lag: null, lagSeconds: null, topics: ['orders'], unknownTopics: ['orders'] }],
    });
    const said = / in topics that are not in this database: orders\. Their log is in another one, or they are gone/;
    expect(await cli(database, 'groups')).toMatch(said);
    expect(await document(database, 'groups', 'show', 'far')).toMatchObject({
      partitions: [{ nextOffset: '7', end: null, stored: '3', lag: null, lagSeconds: null }],
    });
    const shown = await cli(database, 'groups', 'show', 'far');
    expect(shown).toMatch(/STORED[^]*orders +0 +7 +- +- +- +3 /);
    expect(shown).toMatch(said);
  });

  it('is said to have no place once its topic was deleted', async () => {
    await using database = await createTestDatabase();
    await publish(database, 2);
    await relayAll(database, 1);
    await database.pool.query(`insert into tailrace.consumer_group (name) values ('idle');
      insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset) values ('idle', 'counts', 0, 1)`);
    const said =
      /\nidle has no place in any topic, as after its topics were deleted, and no member\. .*groups delete idle\n/;
    expect(await cli(database, 'groups')).not.toMatch(said);
    await cli(database, 'topics', 'delete', 'counts', '--yes');
    expect(await cli(database, 'groups')).toMatch(said);
    expect(await document(database, 'groups')).toMatchObject({
      groups: [{ group: 'idle', lag: null, topics: [], unknownTopics: [] }],
    });
    expect(await cli(database, 'groups', 'describe', 'idle')).toBe(
      'No member is there.\n\nIt has no place in any topic.\n',
    );
    await database.pool.query(`update tailrace.consumer_group set follows = 'other'`);
    expect(await cli(database, 'groups')).not.toMatch(said);
  });
});

it.each([
  ['a group that is not there', 1, ['groups', 'show', 'none'], /no group "none"/],
  ['a dead letter that is not there', 1, ['dead-letters', 'show', 'g', 'counts/0@1'], /nothing aside at counts\/0@1/],
  ['a retry of nothing', 1, ['dead-letters', 'retry', '--group', 'g', 'counts/0@1'], /no dead letters there/],
  ['a retry of an unknown group', 1, ['dead-letters', 'retry', '--group', 'none', '--all'], /no group "none"/],
  ['a list of an unknown group', 1, ['dead-letters', 'list', '--group', 'none'], /no group "none"/],
  ['a dead letter of an unknown group', 1, ['dead-letters', 'show', 'none', 'counts/0@1'], /no group "none"/],
  [
    'a retry of all, and of some',
    2,
    ['dead-letters', 'retry', '--group', 'g', '--all', '--type', 'T'],
    /Expected places, .* found --type together with --all/,
  ],
  [
    'a retry of all, and of a place',
    2,
    ['dead-letters', 'retry', 'counts/0@1', '--all'],
    /Expected positions, .* found positions together with --all/,
  ],
  ['an edit of nothing', 2, ['dead-letters', 'edit-and-redrive', 'g', 'counts/0@1'], /Expected --payload/],
  ['a place that is none', 2, ['dead-letters', 'show', 'g', 'counts'], /Expected topic\/partition@offset/],
])('refuses %s', async (_what, exitCode, args, message) => {
  await using database = await createTestDatabase();
  await database.pool.query(`insert into tailrace.consumer_group (name) values ('g')`);
  const outcome = await run([...args], { DATABASE_URL: database.connectionString });
  expect(outcome).toMatchObject({ exitCode, out: '' });
  expect(outcome.err).toMatch(message);
});
