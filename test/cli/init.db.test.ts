import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { ROLES, type RoleKind } from '../../src/cli/init/rights.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/message/definition.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { migrate } from '../../src/postgres/migrations.ts';
import { createRelay, pollingSource, walSource } from '../../src/relay/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { run } from './kit.ts';
import { openPool } from '../servers/pool.ts';

/** A database with the roles of init, named after it, a login in each, and one login in none. */
interface Prepared extends AsyncDisposable {
  readonly database: TestDatabase;
  readonly kinds: readonly Login[];
  url(login: Login): string;
}

type Login = RoleKind | 'nobody';

const init = ({ connectionString, name }: TestDatabase, ...args: string[]) =>
  run(['init', '--role-prefix', name, ...args], { DATABASE_URL: connectionString });

async function dropRoles({ pool, name }: TestDatabase): Promise<void> {
  const { rows } = await pool.query<{ role: string }>(
    `select quote_ident(rolname) as role from pg_roles where rolname like $1 order by rolname like '%\\_login' desc`,
    [`${name}\\_%`],
  );
  for (const { role } of rows) await pool.query(`drop owned by ${role} cascade`);
  for (const { role } of rows) await pool.query(`drop role ${role}`);
}

async function prepare(): Promise<Prepared> {
  const database = await createTestDatabase();
  const outcome = await init(database);
  expect(outcome).toMatchObject({ exitCode: 0, err: '' });
  const kinds: Login[] = [...ROLES.map(({ kind }) => kind), 'nobody'];
  const login = (kind: Login): string => `${database.name}_${kind}_login`;
  for (const kind of kinds) {
    const member = kind === 'nobody' ? '' : `in role ${database.name}_${kind}`;
    const replication = kind === 'relay_wal' ? 'replication' : '';
    await database.pool.query(`create role ${login(kind)} login ${replication} password 'secret' ${member}`);
  }
  const url = (kind: Login): string => {
    const changed = new URL(database.connectionString);
    [changed.username, changed.password] = [login(kind), 'secret'];
    return changed.href;
  };
  const dispose = async (): Promise<void> => {
    await dropRoles(database);
    await database[Symbol.asyncDispose]();
  };
  return { database, kinds, url, [Symbol.asyncDispose]: dispose };
}

const RELAYS = ['relay_wal', 'relay_poll'] as const;
const READERS = [...RELAYS, 'consumer'] as const;

/** An action, its SQL, and the roles that may do it besides the owner, who may do everything. */
const ACTIONS: readonly (readonly [string, string, readonly RoleKind[]])[] = [
  ['publish', `select tailrace.publish('orders', null, 'T', '{}')`, ['app']],
  ['publish in order', `select tailrace.publish_in_key_order('orders', 'k', 'T', '{}')`, ['app']],
  [
    'publish by insert',
    `insert into tailrace.outbox (message_id, topic, type, payload, expires_at, deliver_at)
    values (gen_random_uuid(), 'orders', 'T', '{}', now(), now())`,
    ['app'],
  ],
  ['claim a batch of a producer', `select tailrace.claim_batch(gen_random_uuid(), 1)`, ['app']],
  ['read what producers did', 'select * from tailrace.producer', []],
  [
    'choose a position',
    `insert into tailrace.outbox (position, message_id, topic, type, payload)
    overriding system value values (7, gen_random_uuid(), 'orders', 'T', '{}')`,
    [],
  ],
  [
    'choose a transaction',
    `insert into tailrace.outbox (tx, message_id, topic, type, payload)
    values (7, gen_random_uuid(), 'orders', 'T', '{}')`,
    [],
  ],
  ['read the outbox', 'select * from tailrace.outbox', READERS],
  ['read a partition of it', 'select * from tailrace.outbox_1', []],
  ['change the outbox', `update tailrace.outbox set topic = 'x'`, []],
  ['delete from the outbox', 'delete from tailrace.outbox', []],
  ['truncate the outbox', 'truncate tailrace.outbox', []],
  ['make outbox partitions', 'select tailrace.ensure_outbox_partitions(9)', RELAYS],
  ['summarize the outbox', 'select tailrace.summarize_outbox()', RELAYS],
  ['read the lease', 'select * from tailrace.relay_lease', RELAYS],
  ['take the lease', `insert into tailrace.relay_lease values ('relay', 1, 'x', 1, 'x', 1, now())`, RELAYS],
  ['keep the lease', 'update tailrace.relay_lease set expires_at = now()', RELAYS],
  ['remove the lease', 'delete from tailrace.relay_lease', []],
  [
    'append a batch',
    `insert into tailrace.relay_batch (name, seq, epoch, progress) values ('relay', 1, 1, '')`,
    RELAYS,
  ],
  ['read batches', 'select * from tailrace.relay_batch', READERS],
  ['change a batch', `update tailrace.relay_batch set progress = ''`, []],
  ['remove old batches', `delete from tailrace.relay_batch where seq < 0`, RELAYS],
  [
    'append an entry',
    `insert into tailrace.log_entry (partition, base, count, ids, seq) values (1, 0, 1, '{1}', 1)`,
    RELAYS,
  ],
  ['change an entry', 'update tailrace.log_entry set count = 1', []],
  ['remove an entry', 'delete from tailrace.log_entry', RELAYS],
  ['move the start of a partition', 'update tailrace.log_partition set start = 1', RELAYS],
  ['change a partition', 'update tailrace.log_partition set topic = topic', []],
  ['set what a topic keeps', 'update tailrace.log_topic set retention_ms = 1, retention_bytes = 1', RELAYS],
  ['change a topic', 'update tailrace.log_topic set partitions = 1', RELAYS],
  ['measure a partition', 'update tailrace.log_segment set bytes = 1', RELAYS],
  ['note how far a partition is compacted', 'update tailrace.log_compaction set clean_to = 1', RELAYS],
  ['read that', 'select * from tailrace.log_compaction', READERS],
  ['seal a partition', `insert into tailrace.outbox_sealed (name, low, high) values ('x', 1, 2)`, []],
  ['read what could not be routed', 'select * from tailrace.relay_dead_letter', READERS],
  [
    'set a message aside that cannot be routed',
    `insert into tailrace.relay_dead_letter (position, seq, topic, reason, error) values (1, 1, 'x', 'x', 'x')`,
    RELAYS,
  ],
  ['ask for its retry', `update tailrace.relay_dead_letter set asked = 'retry'`, RELAYS],
  ['forget it', 'delete from tailrace.relay_dead_letter', RELAYS],
  ['create a topic', `insert into tailrace.log_topic (name, partitions) values ('x', 1)`, RELAYS],
  ['read topics', 'select * from tailrace.log_topic, tailrace.log_partition, tailrace.log_entry', READERS],
  ['give a topic more partitions', `select tailrace.add_partitions('none', 3)`, RELAYS],
  ['read how topics grew', 'select * from tailrace.log_topic_growth', READERS],
  ['remove a topic', 'delete from tailrace.log_topic', []],
  ['join a group', `insert into tailrace.consumer_group (name) values ('g')`, ['consumer']],
  ['lock a group', 'select from tailrace.consumer_group for update', ['consumer']],
  ['remove a group', 'delete from tailrace.consumer_group', []],
  [
    'become a member',
    `insert into tailrace.consumer_member (group_name, member_id, topics, expires_at)
    select name, 'm', '{}', now() from tailrace.consumer_group`,
    ['consumer'],
  ],
  ['leave', 'delete from tailrace.consumer_member', ['consumer']],
  ['move a cursor', 'update tailrace.consumer_cursor set next_offset = 1', ['consumer']],
  ['remove a cursor', 'delete from tailrace.consumer_cursor', []],
  [
    'say that a message is handled',
    `insert into tailrace.processed_message values (gen_random_uuid(), 'g', 1)`,
    ['consumer'],
  ],
  ['unsay that a message is handled', 'delete from tailrace.processed_message', []],
  ['read dead letters', 'select * from tailrace.parked_message', ['consumer']],
  ['change dead letters', 'update tailrace.parked_message set dead = false', ['consumer']],
  ['handle parked messages', 'delete from tailrace.parked_message', ['consumer']],
  [
    'say what was done to parked messages',
    `insert into tailrace.parked_audit (actor, action, group_name, topic, partition, record_offset, generation, message_id, before)
    values ('me', 'retry', 'g', 't', 0, 0, 1, gen_random_uuid(), '{}')`,
    ['consumer'],
  ],
  ['unsay what was done to parked messages', 'delete from tailrace.parked_audit', []],
  ['count attempts that a process may die of', 'update tailrace.suspect_attempt set attempts = 1', ['consumer']],
  ['make partitions for handled messages', 'select tailrace.ensure_processed_partitions(5)', ['consumer']],
  ['let old rows of handled messages leave', 'select tailrace.expire_processed_messages()', ['consumer']],
  ['drop old partitions of them', 'select tailrace.drop_processed_partitions()', ['consumer']],
  ['say how far a place has to come', 'update tailrace.processed_hold set until_offset = 0', ['consumer']],
  ['end a round by hand', 'delete from tailrace.processed_round', []],
  ['check an assignment', `select tailrace.assert_assignment('g', 't', 0, 1)`, ['consumer']],
  ['read migrations', 'select * from tailrace.migration', READERS],
  ['record a migration', `insert into tailrace.migration (version, name) values (99, 'x')`, []],
  ['create a table', 'create table tailrace.mine ()', []],
  ['alter the outbox', 'alter table tailrace.outbox add column mine int', []],
  ['change the publication', `alter publication tailrace set (publish = 'insert, update')`, []],
  [
    'give rights away', // Postgres only warns those who have a right that they may not pass on.
    `do $$ begin
      grant select on tailrace.outbox to public;
      if not has_table_privilege('public', 'tailrace.outbox', 'select') then raise insufficient_privilege; end if;
    end $$`,
    [],
  ],
];

describe('rights', () => {
  it('are what each role needs and nothing else: role × action', async () => {
    await using prepared = await prepare();
    for (const kind of prepared.kinds) {
      const client = new pg.Client(prepared.url(kind));
      await client.connect();
      try {
        const may: string[] = [];
        for (const [action, sql] of ACTIONS) if (await isAllowed(client, sql)) may.push(action);
        const expected = ACTIONS.filter(
          ([, , kinds]) => kind === 'migrator' || (kinds as readonly string[]).includes(kind),
        );
        expect({ kind, may }).toEqual({ kind, may: expected.map(([action]) => action) });
      } finally {
        await client.end();
      }
    }
  });

  it('stand in the list for every table and function', async () => {
    await using database = await createTestDatabase();
    const { rows } = await database.pool.query<{ name: string }>(
      `select relname as name from pg_class where relnamespace = 'tailrace'::regnamespace and relkind in ('r', 'p') and not relispartition
        union select proname from pg_proc where pronamespace = 'tailrace'::regnamespace`,
    );
    const named = new Set(ROLES.flatMap(({ tables, functions }) => [...Object.keys(tables), ...functions]));
    // Whatever a migration adds has to be given to a role in src/cli/init/rights.ts.
    expect(rows.map(({ name }) => name).filter((name) => !named.has(name))).toEqual([]);
  });

  it('of roles without login, with no attribute that would say more', async () => {
    await using prepared = await prepare();
    const { database } = prepared;
    const { rows } = await database.pool.query(
      `select rolname from pg_roles where rolname like $1 and rolname not like '%\\_login'
        and (rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)`,
      [`${database.name}\\_%`],
    );
    expect(rows).toEqual([]);
  });
});

/** Whether a statement is not refused for want of a right. What it did is undone. */
async function isAllowed(client: pg.Client, sql: string): Promise<boolean> {
  await client.query('begin');
  try {
    await client.query(sql);
    return true;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === '42501') return false;
    if (code === 'TR001') return true; // what assert_assignment is for
    throw new Error(`${sql}: ${String(error)}`, { cause: error });
  } finally {
    await client.query('rollback');
  }
}

const Counted = defineEvent<{ readonly n: number }>('Counted', { topic: 'counts' });

it.each([
  ['wal', walSource, 'relay_wal'],
  ['polling', pollingSource, 'relay_poll'],
] as const)(
  'the roles are enough for an application, a relay in %s mode and a consumer',
  async (mode, makeSource, kind) => {
    await using prepared = await prepare();
    const url = (login: Login): string => prepared.url(login);
    const log = postgresLog({ connectionString: url(kind) });
    const ownLog = postgresLog({ connectionString: url('consumer') });
    const pool = openPool({ connectionString: url('consumer') });
    const warnings: string[] = [];
    const note = (_fields: object, message: string): number => warnings.push(message);
    const logger = { debug: () => undefined, info: () => undefined, warn: note, error: note };
    try {
      await using relay = createRelay({ source: makeSource({ connectionString: url(kind), logger }), log, logger });
      await using consumer = createConsumer({
        log: ownLog,
        group: 'g',
        database: pool,
        logger,
        retries: { attempts: 1 },
      }).on(Counted, ({ payload: { n } }) => {
        if (n < 0) throw new Error('negative');
      });
      await relay.start();
      await consumer.start();
      await expect.poll(() => relay.status().source?.mode, { timeout: 60_000 }).toBe(mode);
      const app = new pg.Client(url('app'));
      await app.connect();
      await app.query('begin');
      await createOutbox().publish(app, [Counted({ n: 1 }), Counted({ n: -1 })]);
      await app.query('commit');
      await app.end();
      const published = await run(['publish', 'counts', '--type', 'Counted', '--payload', '{"n": 2}'], {
        DATABASE_URL: url('app'),
      });
      expect(published).toMatchObject({ exitCode: 0, err: '' });
      const seen = (): object => ({ ...consumer.status(), mode: relay.status().source?.mode });
      await expect.poll(seen, { timeout: 60_000, interval: 20 }).toMatchObject({ handled: 2, dead: 1, mode });
      expect(warnings.filter((text) => /failed|could not|upkeep/i.test(text))).toEqual([]);
      for (const command of ['topics', 'groups', 'dead-letters']) {
        expect(await run([command, '--json'], { DATABASE_URL: url('consumer') })).toMatchObject({
          exitCode: 0,
          err: '',
        });
      }
    } finally {
      await Promise.all([log.close(), ownLog.close(), pool.end()]);
    }
    expect((await run(['tail', 'counts', '--exit'], { DATABASE_URL: url('app') })).exitCode).toBe(1);
  },
);

it('the role of consumers is enough to trace messages and to list dead letters of the relay', async () => {
  await using prepared = await prepare();
  const { pool, name } = prepared.database;
  const as = { DATABASE_URL: prepared.url('consumer') };
  const { rows } = await pool.query<{ id: string }>(`select tailrace.publish('counts', null, 'Counted', '{}') as id`);
  const traced = await run(['trace', rows[0]?.id ?? ''], as);
  expect(traced).toMatchObject({ exitCode: 0, err: '', out: expect.stringContaining('is not in the log yet\n') });
  await pool.query(
    `insert into tailrace.relay_dead_letter (position, seq, topic, reason, error) values (1, 1, 'counts', 'x', 'x')`,
  );
  for (const args of [[], ['list', '--relay']]) {
    const { exitCode, out } = await run(['dead-letters', ...args, '--json'], as);
    expect({ exitCode, ...(JSON.parse(out) as object) }).toMatchObject({ exitCode: 0, relay: [{ position: '1' }] });
  }
  expect(await run(['dead-letters', 'show', '--relay', '1'], as)).toMatchObject({ exitCode: 0, err: '' });

  await pool.query(`revoke select on tailrace.relay_dead_letter from ${name}_consumer`);
  const blind = await run(['dead-letters', '--json'], as);
  expect(JSON.parse(blind.out)).toMatchObject({ deadLetters: [], relay: null });
  expect(await run(['dead-letters'], as)).toEqual({
    exitCode: 0,
    out: 'There are none of groups.\n\nThis role may not read those of the relay.\n',
    err: '',
  });
});

it('may be repeated, says what it did, and mends what was changed', async () => {
  await using database = await createTestDatabase({ migrated: false });
  try {
    const first = JSON.parse((await init(database, '--json')).out) as {
      applied: unknown[];
      roles: { created: boolean }[];
    };
    expect(first.applied.length).toBeGreaterThanOrEqual(3);
    expect(first.roles).toHaveLength(5);
    expect(first.roles.every(({ created }) => created)).toBe(true);
    const rights = await rightsOf(database);
    await database.pool.query(
      `grant all on tailrace.log_entry to ${database.name}_app; grant select on tailrace.outbox to public`,
    );
    await database.pool.query(`revoke insert on tailrace.log_entry from ${database.name}_relay_wal`);
    expect(await rightsOf(database)).not.toEqual(rights);
    const again = await init(database, '--json');
    expect(JSON.parse(again.out)).toMatchObject({ applied: [], roles: first.roles.map(() => ({ created: false })) });
    expect(await rightsOf(database)).toEqual(rights);
    const { out } = await init(database);
    expect(out).toMatch(/replication slot is not made here/);
    expect(out).toContain(`${database.name}_relay_poll  was there`);
  } finally {
    await dropRoles(database);
  }
});

it('refuses a role of that name that may do everything anyway', async () => {
  await using database = await createTestDatabase();
  await database.pool.query(`create role ${database.name}_app superuser`);
  try {
    const { exitCode, out, err } = await init(database);
    expect({ exitCode, out }).toEqual({ exitCode: 1, out: '' });
    expect(err).toMatch(/the role test_\w+_app exists and may do more.*--role-prefix/);
    const made = await database.pool.query('select from pg_roles where rolname = $1', [`${database.name}_consumer`]);
    expect(made.rowCount).toBe(0);
  } finally {
    await dropRoles(database);
  }
});

it('gives the schema to the migrator, who then migrates it', async () => {
  await using database = await createTestDatabase();
  try {
    expect((await init(database)).exitCode).toBe(0);
    const { rows } = await database.pool.query<{ owner: string }>(
      `select distinct owner::regrole::text as owner from (
         select nspowner as owner from pg_namespace where nspname = 'tailrace'
         union select relowner from pg_class where relnamespace = 'tailrace'::regnamespace
         union select proowner from pg_proc where pronamespace = 'tailrace'::regnamespace
         union select pubowner from pg_publication where pubname = 'tailrace') o`,
    );
    expect(rows).toEqual([{ owner: `${database.name}_migrator` }]);
  } finally {
    await dropRoles(database);
  }
});

it('needs no superuser: a role with CREATEROLE that owns the database will do', async () => {
  await using database = await createTestDatabase({ migrated: false });
  const admin = `${database.name}_admin_login`;
  await database.pool.query(`create role ${admin} login createrole password 'secret'`);
  await database.pool.query(`alter database ${database.name} owner to ${admin}`);
  const url = new URL(database.connectionString);
  [url.username, url.password] = [admin, 'secret'];
  try {
    for (let times = 0; times < 2; times++) {
      const outcome = await run(['init', '--role-prefix', database.name], { DATABASE_URL: url.href });
      expect(outcome).toMatchObject({ exitCode: 0, err: '' });
    }
    const pool = openPool({ connectionString: url.href, max: 1 });
    expect(await migrate(pool)).toEqual([]);
    await pool.end();
  } finally {
    await database.pool.query(`alter database ${database.name} owner to current_user`);
    await dropRoles(database);
  }
});

it('init --sql prints what does the same', async () => {
  await using database = await createTestDatabase({ migrated: false });
  await using other = await createTestDatabase({ migrated: false });
  try {
    const script = await run(['init', '--sql', '--role-prefix', database.name]);
    expect(script).toMatchObject({ exitCode: 0, err: '' });
    await database.pool.query(script.out);
    expect((await init({ ...other, name: database.name })).exitCode).toBe(0);
    expect(await rightsOf(database)).toEqual(await rightsOf(other));
    const pending = await init(database, '--sql');
    expect(pending.out).not.toMatch(/create table/);
    await database.pool.query(pending.out);
    expect(await rightsOf(database)).toEqual(await rightsOf(other));
  } finally {
    await other.pool.query(`drop owned by ${ROLES.map(({ kind }) => `${database.name}_${kind}`).join(', ')} cascade`);
    await dropRoles(database);
  }
});

async function rightsOf({ pool }: TestDatabase): Promise<unknown> {
  const { rows } = await pool.query(
    `select relname as name, relowner::regrole::text as owner, relacl::text as rights from pg_class
       where relnamespace = 'tailrace'::regnamespace and relkind in ('r', 'p')
     union all select c.relname || '.' || a.attname, '', a.attacl::text from pg_attribute a join pg_class c on c.oid = a.attrelid
       where relnamespace = 'tailrace'::regnamespace and attacl is not null
     union all select proname, proowner::regrole::text, proacl::text from pg_proc where pronamespace = 'tailrace'::regnamespace
     union all select nspname, nspowner::regrole::text, nspacl::text from pg_namespace where nspname = 'tailrace'
     order by 1`,
  );
  expect(rows.length).toBeGreaterThan(20);
  return rows;
}

it.each([
  ['a bad prefix', ['--role-prefix', 'pg_mine'], /--role-prefix is "pg_mine"/, /^$/],
  ['a bad schema', ['--schema', 'No'], /--schema is "No"; expected 1 to 63 lower-case letters/, /^$/],
  [
    'two forms',
    ['--sql', '--json'],
    /do not go together/,
    /^\{"error":\{"code":"INVALID_OPTION","message":[^\n]+\}\n$/,
  ],
])('refuses %s', async (_what, args, message, document) => {
  const { exitCode, out, err } = await run(['init', ...args], {});
  expect(exitCode).toBe(2);
  expect(out).toMatch(document);
  expect(err).toMatch(message);
});
