import { execFile } from 'node:child_process';
import { chmod, chown, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { startLocalServer, type LocalServer, type LocalServerOptions } from '../../src/postgres/local-server.ts';
import { migrate } from '../../src/postgres/migrations.ts';
import { memoryFolder, withDatabase } from '../servers/postgres-setup.ts';
import { openPool } from '../servers/pool.ts';

const run = promisify(execFile);

/** A server that a test may break, with a migrated database. */
export interface OwnServer extends AsyncDisposable {
  readonly server: LocalServer;
  readonly connectionString: string;
  readonly pool: pg.Pool;
}

export async function startOwnServer(options: LocalServerOptions): Promise<OwnServer> {
  const server = await startLocalServer(options);
  const admin = new pg.Client(server.connectionString);
  await admin.connect();
  await admin.query('create database shop').catch(() => undefined); // the folder was served before
  await admin.end();
  const connectionString = withDatabase(server.connectionString, 'shop');
  const pool = openPool({ connectionString, max: 10 });
  await migrate(pool);
  const dispose = async (): Promise<void> => {
    if (!pool.ended) await pool.end();
    await server.stop();
  };
  return { server, connectionString, pool, [Symbol.asyncDispose]: dispose };
}

/** A folder for a data folder and files, in memory if there is room, removed in the end. */
export async function temporaryFolder(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join((await memoryFolder()) ?? tmpdir(), 'tailrace-source-'));
  await chmod(path, 0o755); // the server's account reaches what is in it
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 20 }) };
}

/** Runs one of the server's programs on its data folder, as the user who owns that. */
export async function runOnData(binDir: string, program: string, dataDir: string, args: string[]): Promise<void> {
  const { uid, gid } = await stat(dataDir);
  await run(join(binDir, program), [...args, dataDir], { uid, gid, cwd: '/' });
}

/** A certificate authority, and a certificate of it with its key: paths. */
export interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Makes them in `folder`, for the loopback address. The key is readable for the owner of `dataDir` alone. */
export async function makeCertificates(folder: string, name: string, dataDir: string): Promise<Certificates> {
  const file = (end: string): string => join(folder, `${name}.${end}`);
  const [ca, caKey, cert, key] = [file('ca.pem'), file('ca.key'), file('pem'), file('key')];
  const request = ['req', '-newkey', 'rsa:2048', '-nodes', '-sha256'];
  const authority = ['-x509', '-days', '2', '-subj', `/CN=${name} authority`, '-keyout', caKey, '-out', ca];
  await run('openssl', [...request, ...authority]);
  await run('openssl', [...request, '-subj', `/CN=${name}`, '-keyout', key, '-out', file('csr')]);
  await writeFile(file('ext'), 'subjectAltName=IP:127.0.0.1\n');
  const signing = ['-CA', ca, '-CAkey', caKey, '-CAcreateserial', '-days', '2', '-extfile', file('ext')];
  await run('openssl', ['x509', '-req', '-in', file('csr'), ...signing, '-out', cert]);
  const { uid, gid } = await stat(dataDir);
  await chown(key, uid, gid);
  await chmod(key, 0o600);
  return { ca, cert, key };
}
