import { access, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { installDebianPackage } from '../servers/debian.ts';

const LIBRARIES = '/usr/lib';

/** The environment in which a process believes that it is so many hours later. Its monotonic clock runs as ever. */
export function fakeClock(library: string, hours: number): Readonly<Record<string, string>> {
  const sign = hours < 0 ? '-' : '+';
  return { LD_PRELOAD: library, FAKETIME: `${sign}${Math.abs(hours)}h`, FAKETIME_DONT_FAKE_MONOTONIC: '1' };
}

/** Where libfaketime is; it is installed if it can be. Throws an error that says why there is none. */
export async function findFakeClock(): Promise<string> {
  const there = await libraryPath();
  if (there !== undefined) return there;
  const failure = process.platform === 'linux' ? await installDebianPackage('libfaketime') : 'it takes Linux';
  const installed = await libraryPath();
  if (installed === undefined)
    throw new Error(`libfaketime is not installed, and not installable (${String(failure)})`);
  return installed;
}

/** Debian has a folder for each kind of machine. */
async function libraryPath(): Promise<string | undefined> {
  const folders = await readdir(LIBRARIES).catch(() => []);
  for (const folder of folders.filter((name) => name.includes('-linux-gnu'))) {
    const path = join(LIBRARIES, folder, 'faketime', 'libfaketimeMT.so.1');
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return undefined;
}
