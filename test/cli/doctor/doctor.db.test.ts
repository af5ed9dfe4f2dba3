import { expect, it } from 'vitest';
import { postgresLog } from '../../../src/broker/postgres/index.ts';
import { createRelay, walSource } from '../../../src/relay/index.ts';
import { createTestDatabase, type TestDatabase } from '../../servers/test-database.ts';
import { run } from '../kit.ts';
import { relayAll } from '../relayed.ts';

interface Report {
  readonly exitCode: number | null;
  readonly level: string;
  readonly findings: readonly { readonly check: string; readonly level: string; readonly what: string }[];
}

async function doctor(url: string, ...args: string[]): Promise<Report> {
  const { exitCode, out, err } = await run(['doctor', '--json', ...args], { DATABASE_URL: url });
  expect(err).toBe('');
  expect(out).toMatch(/^[^\n]+\n$/);
  return { exitCode, ...(JSON.parse(out) as Omit<Report, 'exitCode'>) };
}

const of = ({ findings }: Report, check: string): object | undefined => findings.find((each) => each.check === check);
const fails = ({ findings }: Report): string[] =>
  findings.flatMap(({ level, check }) => (level === 'fail' ? check : []));

it('finds nothing that fails where a relay reads the WAL', async () => {
  await using database = await createTestDatabase();
  const { connectionString, name, pool } = database;
  const log = postgresLog({ connectionString });
  await using relay = createRelay({ source: walSource({ connectionString, slot: name }), log });
  await relay.start();
  await pool.query(`select tailrace.publish('orders', null, 'T', '{}') from generate_series(1, 2000)`);
  await expect.poll(() => relay.status().source?.mode, { timeout: 60_000 }).toBe('wal');
  await expect.poll(() => relay.status().appended, { timeout: 60_000 }).toBe(2_000);
  const report = await doctor(connectionString, '--slot', name, '--for', 'relay');
  expect({ exitCode: report.exitCode, fails: fails(report) }).toEqual({ exitCode: 0, fails: [] });
  for (const check of [
    'slot',
    'relay',
    'publication',
    'schema',
    'rights',
    'outbox',
    'outbox partitions',
    'processed_message partitions',
    'wal_level',
  ]) {
    expect(of(report, check), check).toMatchObject({ level: 'ok' });
  }
  expect(of(report, 'relay lag')).toMatchObject({ level: 'ok', what: 'The relay has read every message.' });
  expect(of(report, 'clock')).toMatchObject({ what: expect.stringMatching(/-?\d{1,3} ms\.$/) });
  await relay.stop();
  await log.close();
  const readers = async (): Promise<number | null> =>
    (await pool.query('select from pg_replication_slots where slot_name = $1 and active', [name])).rowCount;
  await expect.poll(readers, { timeout: 60_000 }).toBe(0); // the server notices a little later
  const after = await doctor(connectionString, '--slot', name);
  expect(of(after, 'relay')).toMatchObject({ level: 'warn' });
  expect(of(after, 'slot')).toMatchObject({ level: 'warn', what: expect.stringContaining('nobody reads it') });
});

it('sees messages that wait, and groups that are behind', async () => {
  await using database = await createTestDatabase();
  const { connectionString, pool } = database;
  await pool.query(`select tailrace.publish('orders', null, 'T', '{}') from generate_series(1, 5)`);
  await relayAll(database);
  await pool.query(`insert into tailrace.outbox (message_id, topic, type, payload, occurred_at)
    select gen_random_uuid(), 'orders', 'T', '{}', now() - interval '2 minutes' from generate_series(1, 3)`);
  await pool.query(`insert into tailrace.consumer_group (name) values ('billing');
    insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset)
      select 'billing', topic, partition, 0 from tailrace.log_partition`);
  const report = await doctor(connectionString);
  expect(fails(report)).toEqual(['relay', 'relay lag']);
  expect(report.exitCode).toBe(1);
  expect(of(report, 'relay lag')).toMatchObject({ what: expect.stringMatching(/^3 messages.* 1[2-9]\d s\.$/) });
  expect(of(report, 'group billing')).toMatchObject({ level: 'warn', what: expect.stringContaining('5 messages') });
});

it('tells a database without tables, in text that says what mends it', async () => {
  await using database = await createTestDatabase({ migrated: false });
  const { exitCode, out, err } = await run(['doctor'], { DATABASE_URL: database.connectionString });
  expect({ exitCode, err }).toEqual({ exitCode: 1, err: '' });
  expect(out).toMatch(
    /^fail {2}schema: There are no tables.*\n {6}why: .*\n {6}mend: tailrace migrate --schema tailrace$/m,
  );
});

it.each<[string, string, string]>([
  [
    'row security',
    `alter table tailrace.outbox enable row level security; alter table tailrace.outbox force row level security`,
    'outbox',
  ],
  ['an UNLOGGED partition', 'alter table tailrace.outbox_1 set unlogged', 'outbox'],
  ['a cached identity', 'alter sequence tailrace.outbox_position_seq cache 8', 'outbox'],
  ['no publication', 'drop publication tailrace', 'publication'],
  ['another publication', `alter publication tailrace set (publish = 'update')`, 'publication'],
  [
    'no partitions ahead',
    "do $$ declare t text; begin for t in select inhrelid::regclass from pg_inherits where inhparent = 'tailrace.outbox'::regclass loop execute 'drop table ' || t; end loop; end $$",
    'outbox partitions',
  ],
  [
    'no weeks ahead',
    "do $$ declare t text; begin for t in select inhrelid::regclass from pg_inherits where inhparent = 'tailrace.processed_message'::regclass and inhrelid::regclass::text not like '%default' offset 1 loop execute 'drop table ' || t; end loop; end $$",
    'processed_message partitions',
  ],
  ['a schema of a later version', `insert into tailrace.migration (version, name) values (999, 'x')`, 'schema'],
])('sees %s', async (what, sql, check) => {
  await using database = await createTestDatabase();
  await using role = await plainRole(
    database,
    `grant usage on schema tailrace to "@"; grant select on all tables in schema tailrace to "@"`,
  );
  expect(of(await doctor(role.url), check)).toMatchObject({ level: 'ok' });
  await database.pool.query(sql);
  // A superuser passes row security by, so it shows with another role only.
  const url = what === 'row security' ? role.url : database.connectionString;
  expect(of(await doctor(url), check)).not.toMatchObject({ level: 'ok' });
});

it('a role without rights: says so, and what it could not look at', async () => {
  await using database = await createTestDatabase();
  await using role = await plainRole(database, '');
  const report = await doctor(role.url);
  expect({ exitCode: report.exitCode, fails: fails(report) }).toEqual({ exitCode: 1, fails: ['rights'] });
  expect(of(report, 'relay lag')).toMatchObject({ level: 'warn', what: expect.stringContaining('Not looked at') });
});

it('sees what a role lacks for what it is meant for', async () => {
  await using database = await createTestDatabase();
  await using role = await plainRole(
    database,
    `grant usage on schema tailrace to "@"; grant insert (message_id, topic, key, type, kind, headers, payload, payload_bytes, occurred_at, expires_at, deliver_at) on tailrace.outbox to "@"; grant execute on function tailrace.claim_batch to "@"`,
  );
  expect(fails(await doctor(role.url, '--for', 'app'))).toEqual([]);
  const revoked = `revoke insert (deliver_at, expires_at) on tailrace.outbox from "@"`;
  await database.pool.query(revoked.replace('@', `${database.name}_plain`));
  expect(of(await doctor(role.url, '--for', 'app'), 'rights')).toMatchObject({
    level: 'fail',
    what: expect.stringContaining(' lacks insert (expires_at, deliver_at) on outbox.'),
  });
  const relay = await doctor(role.url, '--for', 'relay');
  expect(fails(relay)).toEqual(['rights']);
  expect(of(relay, 'rights')).toMatchObject({ what: expect.stringMatching(/insert on log_entry.*select on outbox/) });
});

/** A login with the given rights, where "@" stands for it. */
async function plainRole(
  { pool, name, connectionString }: TestDatabase,
  grants: string,
): Promise<{ url: string } & AsyncDisposable> {
  const role = `${name}_plain`;
  await pool.query(`create role "${role}" login password 'secret'`);
  await pool.query(grants.replaceAll('@', role));
  const url = new URL(connectionString);
  [url.username, url.password] = [role, 'secret'];
  return {
    url: url.href,
    [Symbol.asyncDispose]: async () => {
      await pool.query(`drop owned by "${role}"; drop role "${role}"`);
    },
  };
}
