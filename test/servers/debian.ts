import { execFile } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Installs a Debian package, without letting it start a server of its own. Returns why it could not; `undefined` if it
 * could.
 */
export async function installDebianPackage(name: string): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'not root';
  try {
    await forbidMainCluster();
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    await run('apt-get', ['update', '--quiet'], { env }).catch(() => undefined); // perhaps another run is at it
    const options = ['Dpkg::Options::=--force-confold', 'DPkg::Lock::Timeout=300'].flatMap((option) => ['-o', option]);
    await withoutServices(async () => {
      const args = ['install', '--yes', '--no-install-recommends', ...options, name];
      await run('apt-get', args, { env, maxBuffer: 64_000_000 });
    });
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** The package postgresql-15 would otherwise create a cluster of its own. */
async function forbidMainCluster(): Promise<void> {
  await mkdir('/etc/postgresql-common', { recursive: true });
  const path = '/etc/postgresql-common/createcluster.conf';
  await writeFile(path, 'create_main_cluster = false\n', { flag: 'wx' }).catch(() => undefined); // there is one: keep it
}

/** Debian asks this program whether a package may start its services; 101 means no. Where there is one, it is kept. */
const POLICY = '/usr/sbin/policy-rc.d';

async function withoutServices(install: () => Promise<void>): Promise<void> {
  const isOurs = await writeFile(POLICY, '#!/bin/sh\nexit 101\n', { flag: 'wx', mode: 0o755 }).then(
    () => true,
    () => false,
  );
  try {
    await install();
  } finally {
    if (isOurs) await rm(POLICY, { force: true });
  }
}
