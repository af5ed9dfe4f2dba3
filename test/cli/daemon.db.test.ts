import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseExposition, promtoolFindings } from '../admin/exposition.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { CliProcess } from './kit.ts';

const WAIT = { timeout: 60_000 };

interface Folder extends AsyncDisposable {
  readonly path: string;
  /** Writes a file, and returns its path. */
  write(name: string, content: object | string): Promise<string>;
}

async function createFolder(): Promise<Folder> {
  const path = await mkdtemp(join(tmpdir(), 'tailrace-config-'));
  return {
    path,
    write: async (name, content) => {
      const file = join(path, name);
      await writeFile(file, typeof content === 'string' ? content : JSON.stringify(content));
      return file;
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
}

function pipelineOf({ connectionString, name }: TestDatabase, more: object = {}) {
  return { databaseUrl: connectionString, slot: name, leaseMs: 60_000, ...more };
}

/** The same server, another database. */
function elsewhere({ connectionString }: TestDatabase, database: string): string {
  return connectionString.replace(/\/[^/?]*(\?|$)/, `/${database}$1`);
}

async function publish({ pool }: TestDatabase, count = 1): Promise<void> {
  await pool.query(
    `select tailrace.publish('orders', i::text, 'OrderPlaced', '{"card": "payload-canary"}') from generate_series(1, $1::int) i`,
    [count],
  );
}

async function appended({ pool }: TestDatabase): Promise<number> {
  const result = await pool.query<{ n: number }>('select coalesce(sum(count), 0)::int as n from tailrace.log_entry');
  return result.rows[0]!.n;
}

async function urlOf(cli: CliProcess): Promise<string> {
  const [, url = ''] = await cli.says(/"url":"(http:[^"]+)"/);
  return url;
}

function start(config: string, env: Record<string, string> = {}, ...args: string[]): CliProcess {
  return new CliProcess(['relay', '--config', config, '--json', ...args], env);
}

it('runs several pipelines; one that cannot work is told of and leaves the others alone', async () => {
  await using shop = await createTestDatabase();
  await using stock = await createTestDatabase();
  await using folder = await createFolder();
  const lost = { databaseUrl: elsewhere(shop, 'no_such_database') };
  const pipelines = { shop: pipelineOf(shop), stock: pipelineOf(stock, { mode: 'polling' }), lost };
  await using cli = start(await folder.write('relay.json', { pipelines, http: { port: 0 } }));
  const url = await urlOf(cli);
  await cli.says(/"pipeline":"lost","state":"halted"/);
  await publish(shop, 10);
  await publish(stock, 20);
  await expect.poll(() => appended(shop), WAIT).toBe(10);
  await expect.poll(() => appended(stock), WAIT).toBe(20);

  expect((await fetch(`${url}/livez`)).status).toBe(200);
  const ready = await fetch(`${url}/readyz`);
  expect(ready.status).toBe(503);
  expect(await ready.json()).toMatchObject({
    isReady: false,
    pipelines: [
      { name: 'shop', state: 'leading' },
      { name: 'stock', state: 'leading' },
      { name: 'lost', state: 'halted', reason: expect.stringContaining('no_such_database') },
    ],
  });

  cli.child.kill('SIGTERM');
  const { exitCode, out } = await cli.outcome();
  expect(exitCode).toBe(1);
  expect(JSON.parse(out)).toMatchObject({
    pipelines: {
      shop: { state: 'stopped', appended: 10 },
      stock: { state: 'stopped', modes: ['polling'], appended: 20 },
      lost: {
        state: 'halted',
        error: { code: '3D000', message: expect.stringMatching(/no database no_such_database/) },
      },
    },
    error: { code: 'FAILED', message: expect.stringMatching(/^1 of 3 pipelines halted\. lost: /) },
  });
});

it('is ready while it stands by, and tells lags and counts', async () => {
  await using shop = await createTestDatabase();
  await using folder = await createFolder();
  const path = await folder.write('relay.json', { pipelines: { shop: pipelineOf(shop) }, http: { port: 0 } });
  await using first = start(path);
  await first.says(/"state":"leading"/);
  await using second = start(path);
  const url = await urlOf(second);
  await second.says(/"state":"standby"/);
  expect((await fetch(`${url}/readyz`)).status).toBe(200);

  const firstUrl = await urlOf(first);
  await publish(shop, 5);
  const scrape = async () => (await fetch(`${firstUrl}/metrics`)).text();
  await expect
    .poll(
      async () => parseExposition(await scrape()).get('tailrace_relay_appended_messages_total{pipeline="shop"}'),
      WAIT,
    )
    .toBe(5);
  await expect
    .poll(async () => parseExposition(await scrape()).get('tailrace_slot_retained_bytes{pipeline="shop"}'), WAIT)
    .toEqual(expect.any(Number));
  const body = await scrape();
  expect(Object.fromEntries(parseExposition(body))).toMatchObject({
    'tailrace_relay_state{pipeline="shop",state="leading"}': 1,
    'tailrace_relay_lag_messages{pipeline="shop"}': expect.any(Number),
    process_cpu_seconds_total: expect.any(Number),
  });
  expect((await promtoolFindings(body)) ?? '').toBe('');
});

it('reads its file again on SIGHUP, and tells what needs a restart', async () => {
  await using shop = await createTestDatabase();
  await using stock = await createTestDatabase();
  await using folder = await createFolder();
  const write = (config: object | string) => folder.write('relay.yaml', config);
  await using cli = start(await write({ pipelines: { shop: pipelineOf(shop) }, http: { port: 0 } }));
  await cli.says(/"pipeline":"shop","state":"leading"/);

  await write({ pipelines: { stock: pipelineOf(stock) }, http: { port: 1 }, log: { level: 'debug' } });
  cli.child.kill('SIGHUP');
  await cli.says(/"added":\["stock"\],"removed":\["shop"\],"restarted":\[\],"message":"the config was read again"/);
  await cli.says(/"settings":\["http"\],"message":"these settings apply after a restart"/);
  await cli.says(/"pipeline":"stock","state":"leading"/);
  await publish(stock, 3);
  await expect.poll(() => appended(stock), WAIT).toBe(3);
  const lease = await shop.pool.query('select expires_at <= clock_timestamp() as free from tailrace.relay_lease');
  expect(lease.rows).toEqual([{ free: true }]);

  await write('pipelines:\n  stock:\n    databseUrl: x\n');
  cli.child.kill('SIGHUP');
  await cli.says(
    /databseUrl is not known\. Did you mean databaseUrl\?.*"the config cannot be used; nothing was changed"/,
  );
  await publish(stock, 1);
  await expect.poll(() => appended(stock), WAIT).toBe(4);

  await write({ pipelines: { stock: pipelineOf(stock) }, http: { port: 1 }, log: { level: 'error' } });
  cli.child.kill('SIGHUP');
  cli.child.kill('SIGTERM');
  expect((await cli.outcome()).exitCode).toBe(0);
});

it('a pipeline that halted is started again by SIGHUP', async () => {
  await using shop = await createTestDatabase();
  await using later = await createTestDatabase({ migrated: false });
  await using folder = await createFolder();
  const pipelines = { shop: pipelineOf(shop), later: pipelineOf(later, { schema: 'later' }) };
  await using cli = start(await folder.write('relay.json', { pipelines }));
  await cli.says(/"pipeline":"shop","state":"leading"/);
  await cli.says(/"pipeline":"later","state":"halted"/);
  await using migrate = new CliProcess(['migrate', '--schema', 'later', '--database-url', later.connectionString]);
  expect((await migrate.outcome()).exitCode).toBe(0);
  cli.child.kill('SIGHUP');
  await cli.says(/"restarted":\["later"\]/);
  await cli.says(/"pipeline":"later","state":"leading"/);
  cli.child.kill('SIGTERM');
  expect((await cli.outcome()).exitCode).toBe(0);
});

it('ends by itself once every pipeline has halted', async () => {
  await using shop = await createTestDatabase();
  await using folder = await createFolder();
  const pipelines = {
    a: { databaseUrl: elsewhere(shop, 'nowhere_a') },
    b: { databaseUrl: elsewhere(shop, 'nowhere_b') },
  };
  await using cli = start(await folder.write('relay.json', { pipelines }));
  const { exitCode, out } = await cli.outcome();
  expect(exitCode).toBe(1);
  expect((JSON.parse(out) as { error: { message: string } }).error.message).toMatch(/^2 of 2 pipelines halted\./);
});

it('does not wait longer than it may for its end', async () => {
  await using shop = await createTestDatabase();
  await using folder = await createFolder();
  const config = { pipelines: { shop: pipelineOf(shop, { mode: 'polling' }) }, shutdownTimeoutMs: 500 };
  await using cli = start(await folder.write('relay.json', config));
  await cli.says(/"state":"leading"/);
  const holder = await shop.pool.connect();
  await holder.query('begin; lock table tailrace.log_entry in access exclusive mode');
  await publish(shop); // its append waits for the lock, and so does the end
  await expect
    .poll(
      // Others on the server wait for locks too, and so does what only reads.
      async () =>
        (
          await holder.query(
            `select from pg_locks where not granted and mode = 'RowExclusiveLock' and relation = 'tailrace.log_entry'::regclass
               and database = (select oid from pg_database where datname = current_database())`,
          )
        ).rowCount,
      WAIT,
    )
    .toBeGreaterThan(0);
  cli.child.kill('SIGTERM');
  const { exitCode, err } = await cli.outcome();
  await holder.query('rollback');
  holder.release();
  expect(exitCode).toBe(1);
  expect(err).toMatch(/Not stopped within 500 ms \(shutdownTimeoutMs\): shop\./);
});

it('shows no secret and no payload anywhere', async () => {
  await using shop = await createTestDatabase();
  await using folder = await createFolder();
  const [password, token, other] = ['canary-password-1', 'canary-token-0123456789', 'canary-password-2'];
  const role = `${shop.name}_relay`;
  await shop.pool.query(`create role ${role} login superuser password '${password}'`);
  const url = new URL(shop.connectionString);
  [url.username, url.password] = [role, password];
  const wrong = new URL(elsewhere(shop, other)); // the server's own message names the database
  const config = `
pipelines:
  shop: { databaseUrl: "\${SHOP_URL}", slot: ${shop.name} }
  wrong: { databaseUrl: "${wrong.href}" }
  down: { databaseUrl: "postgresql://nobody:${other}@127.0.0.1:1/nothing?password=${other}" }
http: { port: 0, token: "\${ADMIN_TOKEN}" }
log: { level: debug }
`;
  await using cli = start(await folder.write('relay.yaml', config), { SHOP_URL: url.href, ADMIN_TOKEN: token });
  const base = await urlOf(cli);
  await cli.says(/"pipeline":"shop","state":"leading"/);
  await cli.says(/"pipeline":"wrong","state":"halted"/);
  await cli.says(/"pipeline":"down"[^\n]*trying again/);
  await publish(shop, 3);
  await expect.poll(() => appended(shop), WAIT).toBe(3);
  const headers = { authorization: `Bearer ${token}` };
  const bodies: string[] = [];
  for (const path of ['/livez', '/readyz', '/metrics', '/status', `/${token}`]) {
    expect((await fetch(base + path)).status).not.toBe(404);
    const answer = await fetch(base + path, { headers });
    bodies.push(await answer.text(), JSON.stringify([...answer.headers]));
  }
  expect(bodies.join('\n')).toContain('wrong');
  await folder.write('relay.yaml', `${config}oops: ${other}\n`);
  cli.child.kill('SIGHUP');
  await cli.says(/oops is not known/);
  cli.child.kill('SIGTERM');
  const { exitCode, out, err } = await cli.outcome();
  await shop.pool.query(`reassign owned by ${role} to current_user; drop role ${role}`);
  expect(exitCode).toBe(1);
  for (const text of [...bodies, out, err]) expect(text).not.toMatch(/canary/);
  expect(err).toContain('[redacted]');
});

it('tells systemd that it works, lives and ends', async () => {
  await using shop = await createTestDatabase();
  await using folder = await createFolder();
  const told = join(folder.path, 'told');
  const program = await folder.write('systemd-notify', `#!/bin/sh\necho "$1 $NOTIFY_SOCKET" >> ${told}\n`);
  await chmod(program, 0o755);
  const env = {
    NOTIFY_SOCKET: '/run/test',
    WATCHDOG_USEC: '200000',
    PATH: `${folder.path}:${process.env['PATH'] ?? ''}`,
  };
  await using cli = start(await folder.write('relay.json', { pipelines: { shop: pipelineOf(shop) } }), env);
  const words = () => readFile(told, 'utf8').catch(() => '');
  await expect.poll(words, WAIT).toMatch(/^READY=1 \/run\/test\n(WATCHDOG=1 \/run\/test\n){2}/);
  await cli.says(/"state":"leading"/);
  cli.child.kill('SIGTERM');
  expect((await cli.outcome()).exitCode).toBe(0);
  await expect.poll(words, WAIT).toMatch(/STOPPING=1 \/run\/test\n/);
});

it('with nothing but flags and environment it serves HTTP as well', async () => {
  await using shop = await createTestDatabase();
  const env = { DATABASE_URL: shop.connectionString, TAILRACE_LOG_FORMAT: 'json', TAILRACE_HTTP_PORT: '0' };
  await using cli = new CliProcess(['relay', '--mode', 'polling', '--lease-ms', '60000'], env);
  const url = await urlOf(cli);
  await cli.says(/"state":"leading","mode":"polling"/);
  expect(await (await fetch(`${url}/readyz`)).json()).toEqual({
    isReady: true,
    pipelines: [{ name: 'default', state: 'leading' }],
  });
  cli.child.kill('SIGINT');
  expect(await cli.outcome()).toMatchObject({ exitCode: 0, out: '' });
});
