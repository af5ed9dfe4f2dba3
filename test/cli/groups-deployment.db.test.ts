import { expect, it } from 'vitest';
import { createTestDatabase } from '../servers/test-database.ts';
import { run } from './kit.ts';

it('groups clone, cutover and canary: say what they did, and what is in the way', async () => {
  await using database = await createTestDatabase();
  await database.pool.query(`
    insert into tailrace.consumer_group (name) values ('g');
    insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset)
      select 'g', 'counts', n, 7 from generate_series(0, 1) n`);
  const groups = (...args: string[]): ReturnType<typeof run> =>
    run(['groups', ...args], { DATABASE_URL: database.connectionString });
  const document = async (...args: string[]): Promise<unknown> => {
    const { exitCode, out } = await groups(...args, '--json');
    expect(exitCode).toBe(0);
    return JSON.parse(out);
  };

  expect(await document('clone', 'g', 'shadow')).toEqual({ from: 'g', to: 'shadow', places: 2, parked: 0 });
  expect((await groups('clone', 'g', 'other')).out).toBe(
    'The group other begins where g is: 2 places, 0 set aside messages.\n',
  );
  expect(await groups('clone', 'g', 'shadow')).toMatchObject({
    exitCode: 1,
    err: expect.stringMatching(/shadow is there already/) as string,
  });

  const slow = await groups('cutover', 'g', 'v2', '--timeout', '1', '--json');
  expect(slow.exitCode).toBe(1);
  expect(slow.err).toMatch(/^Waiting for members of v2 that handle counts: start its processes now. g goes on.\n/);
  expect(JSON.parse(slow.out)).toMatchObject({ error: { code: 'TIMEOUT' } });
  expect((await groups('describe', 'v2')).out).toMatch(/^It waits to take over from g.\n/);
  expect(await document('cutover', 'g', 'v2', '--abort')).toEqual({ from: 'g', to: 'v2', undone: false });
  const taken = { from: 'g', to: 'v2', places: 2, handled: 0, parked: 0 };
  expect(await document('cutover', 'g', 'v2', '--without-members')).toEqual(taken);
  expect((await groups('describe', 'g')).out).toMatch(/^It has handed over to v2.\n/);
  expect(await document('describe', 'v2')).toMatchObject({
    ...{ mode: 'partitions', ephemeral: false, follows: null, handsOverTo: null, canaryPercent: 0 },
    partitions: [{ nextOffset: '7', generation: 2 }, { nextOffset: '7' }],
  });
  expect(await document('describe', 'g')).toMatchObject({
    handsOverTo: 'v2',
    handedOverAt: expect.any(String) as string,
  });
  expect(await groups('cutover', 'g', 'v2', '--abort')).toMatchObject({ exitCode: 1 });
  expect(await groups('cutover', 'g', 'g')).toMatchObject({ exitCode: 2 });

  const none = { group: 'v2', canaries: 0, others: 0, partitions: 2 };
  expect(await document('canary', 'v2', '--percent', '10')).toEqual({ ...none, percent: 10, ofCanaries: 1 });
  expect((await groups('describe', 'v2')).out).toMatch(/^Canaries get 10 percent of the partitions.\n/);
  expect((await groups('canary', 'v2', '--percent', '0')).out).toBe(
    'Canaries of v2 get 0 of 2 partitions (0 are there, and 0 other members).\n',
  );
  expect(await groups('canary', 'none', '--percent', '10')).toMatchObject({ exitCode: 1 });
});

it('groups describe tells what each member of a work queue has in hand', async () => {
  await using database = await createTestDatabase();
  await database.pool.query(`
    insert into tailrace.consumer_group (name, mode) values ('g', 'work-queue');
    insert into tailrace.consumer_member (group_name, member_id, topics, expires_at)
      select 'g', m, '{counts}', now() + interval '1 hour' from unnest('{busy,idle}'::text[]) m;
    insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset, dealt_to, seen_end)
      values ('g', 'counts', 0, 3, 20, 20);
    insert into tailrace.work_range (lease, group_name, topic, partition, from_offset, to_offset, member_id) values
      (gen_random_uuid(), 'g', 'counts', 0, 3, 5, 'busy'), (gen_random_uuid(), 'g', 'counts', 0, 7, 12, 'busy'),
      (gen_random_uuid(), 'g', 'counts', 0, 12, 20, null)`);
  const describe = (...args: string[]): ReturnType<typeof run> =>
    run(['groups', 'describe', 'g', ...args], { DATABASE_URL: database.connectionString });
  expect(JSON.parse((await describe('--json')).out)).toMatchObject({
    mode: 'work-queue',
    members: [
      { member: 'busy', inHand: '7' },
      { member: 'idle', inHand: '0' },
    ],
    partitions: [{ nextOffset: '3' }],
  });
  const { out } = await describe();
  expect(out).toMatch(/^It is a work queue: .*\n/);
  expect(out).toMatch(/IN HAND/);
  expect(out).toMatch(/^busy .* 7 +counts/m);
});
