import { describe, expect, it } from 'vitest';
import { currentVersion, migrate, readMigrations } from '../../src/postgres/migrations.ts';
import { createTcpProxy } from '../broker/postgres/tcp-proxy.ts';
import { createTestDatabase } from '../servers/test-database.ts';
import { openPool } from '../servers/pool.ts';

const versions = (migrations: readonly { readonly version: number }[]): number[] =>
  migrations.map(({ version }) => version);

describe('migrate', () => {
  it('applies every migration to a fresh database, in order', async () => {
    await using database = await createTestDatabase({ migrated: false });
    const all = await readMigrations();
    expect(all.length).toBeGreaterThan(0);
    expect(await currentVersion(database.pool, 'tailrace')).toBe(0);

    const applied = await migrate(database.pool);

    expect(versions(applied)).toEqual(versions(all));
    const recorded = await database.pool.query('select version, name from tailrace.migration order by version');
    expect(recorded.rows).toEqual(all.map(({ version, name }) => ({ version, name })));
    expect(await currentVersion(database.pool, 'tailrace')).toBe(all.at(-1)?.version);
  });

  it('applies nothing the second time', async () => {
    await using database = await createTestDatabase({ migrated: false });
    await migrate(database.pool);
    expect(await migrate(database.pool)).toEqual([]);
  });

  it('fails, and ends no process, when its connection is cut', async () => {
    await using database = await createTestDatabase({ migrated: false });
    await using proxy = await createTcpProxy(database.connectionString);
    const pool = openPool({ connectionString: proxy.connectionString, application_name: 'migrating', max: 1 });
    const client = await pool.connect();
    const cut = proxy.loseNextAnswer('migrating');
    client.release();
    await expect(migrate(pool)).rejects.toThrow(/terminated/);
    await cut;
    expect(versions(await migrate(pool))).toEqual(versions(await readMigrations()));
    await pool.end();
  });

  it('goes on after the last migration that was applied', async () => {
    await using database = await createTestDatabase({ migrated: false });
    const [first] = await readMigrations();
    await database.pool.query(`begin; ${first!.sql}; commit`);
    expect(versions(await migrate(database.pool))).toEqual(versions(await readMigrations()).slice(1));
  });

  it('applies each migration once when several processes call it at once', async () => {
    await using database = await createTestDatabase({ migrated: false });
    const pools = Array.from({ length: 4 }, () => openPool({ connectionString: database.connectionString, max: 1 }));
    const results = await Promise.all(pools.map((pool) => migrate(pool)));
    await Promise.all(pools.map((pool) => pool.end()));
    expect(versions(results.flat())).toEqual(versions(await readMigrations()));
  });

  it('leaves nothing of a migration that fails, and gives its lock back', async () => {
    await using database = await createTestDatabase({ migrated: false });
    await database.pool.query('create schema tailrace; create table tailrace.relay_batch ()'); // in the way of 0002
    await expect(migrate(database.pool)).rejects.toThrow(/relay_batch/);
    expect(await currentVersion(database.pool, 'tailrace')).toBe(1);
    const half = await database.pool.query(`select to_regclass('tailrace.relay_lease') as lease`);
    expect(half.rows).toEqual([{ lease: null }]);

    await database.pool.query('drop table tailrace.relay_batch');
    expect(versions(await migrate(database.pool))).toEqual(versions(await readMigrations()).slice(1));
  });
});

describe('a schema of another name', () => {
  it('holds everything, and nothing is elsewhere', async () => {
    await using database = await createTestDatabase({ migrated: false });
    await migrate(database.pool, { schema: 'custom' });
    const { rows } = await database.pool.query(
      `select count(*) filter (where nspname = 'tailrace')::int as default_schemas,
              array(select pubname::text from pg_publication) as publications
       from pg_namespace`,
    );
    expect(rows).toEqual([{ default_schemas: 0, publications: ['custom'] }]);
  });

  it('has functions that work', async () => {
    await using database = await createTestDatabase({ migrated: false });
    await migrate(database.pool, { schema: 'custom' });
    const published = await database.pool.query<{ id: string }>(
      `select "custom".publish('orders', 'k', 'OrderPlaced', '{"a": 1}') as id`,
    );
    const outbox = await database.pool.query('select message_id, topic from custom.outbox');
    expect(outbox.rows).toEqual([{ message_id: published.rows[0]!.id, topic: 'orders' }]);

    const created = await database.pool.query(
      'select custom.ensure_outbox_partitions(12) > 0 as outbox, custom.ensure_processed_partitions(9) > 0 as processed',
    );
    expect(created.rows).toEqual([{ outbox: true, processed: true }]);
    await expect(database.pool.query(`select custom.assert_assignment('g', 'orders', 0, 1)`)).rejects.toMatchObject({
      code: 'TR001',
    });
  });

  it('stands beside the default one', async () => {
    await using database = await createTestDatabase();
    await migrate(database.pool, { schema: 'custom' });
    await database.pool.query(`select custom.publish('orders', null, 'OrderPlaced', '{}')`);
    const { rows } = await database.pool.query(
      'select (select count(*)::int from custom.outbox) as custom, (select count(*)::int from tailrace.outbox) as other',
    );
    expect(rows).toEqual([{ custom: 1, other: 0 }]);
  });

  it('may have a name that is a word of SQL', async () => {
    await using database = await createTestDatabase({ migrated: false });
    await migrate(database.pool, { schema: 'select' });
    await database.pool.query(`select "select".publish('orders', null, 'OrderPlaced', '{}')`);
  });

  it.each(['', 'Tailrace', '1st', 'a-b', 'a b', 'a"; drop schema public; --', 'pg_tailrace', 'x'.repeat(64), 'é'])(
    'is refused when it is named %j',
    async (schema) => {
      await using database = await createTestDatabase({ migrated: false });
      await expect(migrate(database.pool, { schema })).rejects.toMatchObject({ code: 'INVALID_SCHEMA_NAME' });
    },
  );

  it('may have 63 characters', async () => {
    await using database = await createTestDatabase({ migrated: false });
    const schema = 'x'.repeat(63);
    await migrate(database.pool, { schema });
    expect(await migrate(database.pool, { schema })).toEqual([]);
  });
});

describe('the publication', () => {
  it('shows inserts under the name of the root, and never the payload', async () => {
    await using database = await createTestDatabase();
    const publication = await database.pool.query(
      `select pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot from pg_publication where pubname = 'tailrace'`,
    );
    expect(publication.rows).toEqual([
      { pubinsert: true, pubupdate: false, pubdelete: false, pubtruncate: false, pubviaroot: true },
    ]);
    const tables = await database.pool.query(
      `select schemaname, tablename, attnames::text[] as columns from pg_publication_tables where pubname = 'tailrace'`,
    );
    expect(tables.rows).toEqual([
      { schemaname: 'tailrace', tablename: 'outbox', columns: ['position', 'topic', 'key', 'tx'] },
    ]);
  });
});
