import { readFile } from 'node:fs/promises';
import pg from 'pg';
import { describe, expect, it } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/postgres-log.ts';
import { createConsumer } from '../../src/consumer/consumer.ts';
import { defineEvent } from '../../src/message/definition.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { migrate } from '../../src/postgres/migrations.ts';
import { createRelay } from '../../src/relay/relay.ts';
import { pollingSource } from '../../src/source/polling/polling-source.ts';
import { walSource } from '../../src/source/wal/wal-source.ts';
import { run } from '../cli/kit.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { blocksOf } from './snippets.ts';
import { openPool } from '../servers/pool.ts';

const blocks = blocksOf(await readFile('README.md', 'utf8')).filter(({ language }) => language === 'sql');
const GRANTS = '-- who publishes';
const grants = blocks.find(({ text }) => text.startsWith(GRANTS))?.text ?? '';
const ROLES = ['shop_app', 'shop_relay', 'shop_billing'] as const;

describe('the SQL of the README', () => {
  it.each(blocks.filter(({ text }) => !text.startsWith(GRANTS)).map(({ line, text }) => [line, text] as const))(
    'in line %i runs',
    async (_line, text) => {
      await using database = await createTestDatabase();
      await database.pool.query(text);
    },
  );

  it('shows how far groups are behind', async () => {
    await using database = await createTestDatabase();
    const { pool } = database;
    await pool.query(`
      insert into tailrace.log_topic (name, partitions) values ('orders', 2);
      insert into tailrace.log_partition (topic, partition) values ('orders', 0), ('orders', 1);
      insert into tailrace.log_entry (partition, base, count, ids, seq) values (1, 0, 3, '{1,2,3}', 1), (1, 3, 2, '{4,5}', 2);
      insert into tailrace.consumer_group (name) values ('billing');
      insert into tailrace.consumer_cursor (group_name, topic, partition, next_offset)
        values ('billing', 'orders', 0, 1), ('billing', 'orders', 1, 0)`);
    const text = blocks.find((block) => block.text.includes('as behind'))?.text ?? '';
    const results = (await pool.query(text)) as unknown as pg.QueryResult[];
    expect(results.at(-1)?.rows).toEqual([{ group_name: 'billing', topic: 'orders', behind: '4' }]);
  });
});

const Counted = defineEvent<{ readonly n: number }>('Counted', { topic: 'counts' });

describe('the rights of the README', () => {
  it.each([
    ['wal', walSource, 'alter role shop_relay replication'],
    ['polling', pollingSource, ''],
  ] as const)('are enough in %s mode, and migrating needs no superuser', async (mode, makeSource, more) => {
    await using database = await createTestDatabase({ migrated: false });
    await using roles = await createRoles(database);
    await migrateAs(roles.url('shop_owner'));
    await roles.run('shop_owner', 'revoke execute on all functions in schema tailrace from public');
    await roles.run('shop_owner', grants);
    if (more !== '') await database.pool.query(roles.named(more));
    await database.pool.query(roles.named('create table effect (n int); grant insert on effect to shop_billing'));

    await using log = closing(postgresLog({ connectionString: roles.url('shop_relay') }));
    await using relay = createRelay({ source: makeSource({ connectionString: roles.url('shop_relay') }), log: log.it });
    await relay.start();
    await using ownLog = closing(postgresLog({ connectionString: roles.url('shop_billing') }));
    await using pool = ending(openPool({ connectionString: roles.url('shop_billing') }));
    await using consumer = createConsumer({ log: ownLog.it, group: 'g', database: pool.it }).on(
      Counted,
      ({ payload: { n } }, { tx }) => {
        if (n < 0) throw new Error('negative');
        return tx.query('insert into effect values ($1)', [n]);
      },
    );
    await consumer.start();

    await publishAs(roles.url('shop_app'), [1, -1]);
    await roles.run('shop_app', `select tailrace.publish('counts', null, 'Counted', '{"n": 2}')`);
    const seen = (): unknown => ({ ...consumer.status(), mode: relay.status().source?.mode });
    await expect.poll(seen, { timeout: 60_000, interval: 20 }).toMatchObject({ handled: 2, dead: 1, mode });
    await expect(roles.run('shop_app', 'select from tailrace.outbox')).rejects.toThrow(/permission denied/);
    for (const [kind, role] of Object.entries({ app: 'shop_app', relay: 'shop_relay', consumer: 'shop_billing' })) {
      const { out } = await run(['doctor', '--for', kind], { DATABASE_URL: roles.url(role) });
      expect(out).toMatch(/^ok {4}rights: /m);
    }
  });
});

interface Roles extends AsyncDisposable {
  url(role: string): string;
  /** The text with the names that the roles have here: roles belong to the whole server. */
  named(text: string): string;
  run(role: string, sql: string): Promise<void>;
}

async function createRoles(database: TestDatabase): Promise<Roles> {
  const all = ['shop_owner', ...ROLES];
  const named = (text: string): string => text.replace(/\bshop_/g, `${database.name}_`);
  const url = (role: string): string => {
    const changed = new URL(database.connectionString);
    [changed.username, changed.password] = [named(role), 'secret'];
    return changed.href;
  };
  for (const role of all) await database.pool.query(named(`create role ${role} login password 'secret'`));
  await database.pool.query(named(`grant create on database ${database.name} to shop_owner`));
  return {
    url,
    named,
    run: async (role, sql) => {
      await using client = await connected(url(role));
      await client.it.query(named(sql));
    },
    [Symbol.asyncDispose]: async () => {
      for (const role of all) await database.pool.query(named(`drop owned by ${role} cascade; drop role ${role}`));
    },
  };
}

async function migrateAs(url: string): Promise<void> {
  await using pool = ending(openPool({ connectionString: url, max: 1 }));
  await migrate(pool.it);
}

async function publishAs(url: string, numbers: readonly number[]): Promise<void> {
  await using client = await connected(url);
  await client.it.query('begin');
  await createOutbox().publish(
    client.it,
    numbers.map((n) => Counted({ n })),
  );
  await client.it.query('commit');
}

async function connected(url: string) {
  const client = new pg.Client(url);
  await client.connect();
  return ending(client);
}

function ending<T extends { end(): Promise<void> }>(it: T): { readonly it: T } & AsyncDisposable {
  return { it, [Symbol.asyncDispose]: () => it.end() };
}

function closing<T extends { close(): Promise<void> }>(it: T): { readonly it: T } & AsyncDisposable {
  return { it, [Symbol.asyncDispose]: () => it.close() };
}
