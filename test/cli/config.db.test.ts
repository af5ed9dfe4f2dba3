import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createTestDatabase } from '../servers/test-database.ts';
import { allCommands } from './commands.ts';
import { run } from './kit.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tailrace-config-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

it('commands take database, schema, slot and partitions of a pipeline from the config', async () => {
  await using database = await createTestDatabase({ migrated: false });
  const path = join(folder, 'relay.yaml');
  await writeFile(
    path,
    `pipelines:
  shop:
    databaseUrl: \${SHOP_URL}
    schema: shop_box
    slot: ${database.name}
    log:
      partitions: 3
  stock:
    databaseUrl: \${STOCK_URL}
http:
  token: \${ADMIN_TOKEN}
`,
  );
  const env = { SHOP_URL: database.connectionString, TAILRACE_CONFIG: path };
  const document = async (...args: string[]): Promise<unknown> => {
    const { exitCode, out, err } = await run([...args, '--pipeline', 'shop', '--json'], env);
    expect({ exitCode, err }, args.join(' ')).toEqual({ exitCode: 0, err: '' });
    expect(out).toMatch(/^[^\n]+\n$/);
    return JSON.parse(out);
  };
  expect(await document('migrate')).toMatchObject({ schema: 'shop_box' });
  expect(await document('init', '--role-prefix', database.name)).toMatchObject({ schema: 'shop_box', applied: [] });
  expect(await document('publish', 'orders', '--payload', '{}')).toMatchObject({ ids: [expect.any(String)] });
  expect(await document('topics', 'create', 'orders')).toMatchObject({ schema: 'shop_box', partitions: 3 });
  expect(await document('topics', 'create', 'bills', '--partitions', '5')).toMatchObject({ partitions: 5 });
  expect(await document('topics')).toMatchObject({ topics: [{ topic: 'bills' }, { topic: 'orders', records: '0' }] });
  expect(await document('groups')).toEqual({ schema: 'shop_box', groups: [] });
  expect(await document('dead-letters')).toMatchObject({ schema: 'shop_box' });
  const { out } = await run(['doctor', '--pipeline', 'shop', '--json'], env);
  expect(JSON.parse(out)).toMatchObject({ schema: 'shop_box' });
  expect(out).toContain(database.name);
  const tail = await run(['tail', 'orders', '--exit', '--pipeline', 'shop'], env);
  expect(tail).toEqual({ exitCode: 0, out: '', err: '' });

  const elsewhere = await run(['topics', '--pipeline', 'shop', '--schema', 'other', '--json'], env);
  expect(elsewhere.exitCode).toBe(1);
  expect(JSON.parse(elsewhere.out)).toMatchObject({ error: { code: 'NOT_MIGRATED' } });
  await database.pool.query(
    `do $$ declare role text; begin
      for role in select rolname from pg_roles where starts_with(rolname, '${database.name}_') loop
        execute format('drop owned by %I; drop role %I', role, role);
      end loop;
    end $$`,
  );
});

/** Those that say by their result, or by themselves, that there are no tables; and those that need none. */
const OTHERS = ['completion', 'demo', 'doctor', 'init', 'migrate', 'relay'];

it('whatever needs tables says that there are none, in one line and one document', async () => {
  await using database = await createTestDatabase({ migrated: false });
  const env = { DATABASE_URL: database.connectionString };
  const commands = (await allCommands()).filter(({ name }) => !OTHERS.includes(name));
  expect(commands.length).toBeGreaterThanOrEqual(8);
  for (const command of commands) {
    const json = command.has('--json') ? ['--json'] : [];
    const { exitCode, out, err } = await run([...command.words, ...json], env);
    expect(err, command.name).toMatch(/^tailrace: [^\n]*tailrace migrate[^\n]*\n$/);
    expect(exitCode).toBe(1);
    expect(out === '' ? undefined : JSON.parse(out), command.name).toEqual(
      json.length === 0 ? undefined : { error: { code: 'NOT_MIGRATED', message: err.slice('tailrace: '.length, -1) } },
    );
  }
});

it('the doctor tells in its one document that there are no tables', async () => {
  await using database = await createTestDatabase({ migrated: false });
  const { exitCode, out, err } = await run(['doctor', '--json'], { DATABASE_URL: database.connectionString });
  expect({ exitCode, err }).toEqual({ exitCode: 1, err: '' });
  expect(JSON.parse(out)).toMatchObject({ level: 'fail' });
});
