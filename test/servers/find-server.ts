import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { installDebianPackage } from './debian.ts';

/** Where a program is looked for, and the Debian package that brings it. */
export interface WantedProgram {
  readonly program: string;
  /** Looked through before the PATH. */
  readonly folders?: readonly string[];
  readonly debianPackage: string;
}

/** A server that is not Postgres. */
export interface ServerProgram extends WantedProgram {
  /** As people call it, for messages. */
  readonly name: string;
  /** Set to the URL of a running one, it is taken instead. */
  readonly variable: string;
}

/** A server that runs already, or the path of its program. */
export type FoundServer = { readonly url: string } | { readonly program: string };

/**
 * Looks in this order: a URL in the environment; the program on the PATH; at last installs the Debian package. Throws an
 * error that says how to provide it.
 */
export async function findServer(wanted: ServerProgram): Promise<FoundServer> {
  const url = urlInEnvironment(wanted.variable);
  if (url !== undefined) return { url };
  const found = await findProgram(wanted);
  if ('path' in found) return { program: found.path };
  throw new Error(
    `The tests need ${wanted.name}: ${found.failure}. ` +
      `Install it (Debian: apt-get install ${wanted.debianPackage}), or set ${wanted.variable} to the URL of a running one.`,
  );
}

export function urlInEnvironment(variable: string): string | undefined {
  const url = process.env[variable];
  return url === undefined || url === '' ? undefined : url;
}

/** Looks on the PATH, and at last installs the Debian package; or says why there is none. */
export async function findProgram(
  wanted: WantedProgram,
): Promise<{ readonly path: string } | { readonly failure: string }> {
  const there = await pathOf(wanted);
  if (there !== undefined) return { path: there };
  const failure = await installDebianPackage(wanted.debianPackage);
  const installed = await pathOf(wanted);
  if (installed !== undefined) return { path: installed };
  return {
    failure: `${wanted.program} is not on the PATH, and not installable (${failure ?? 'apt-get installed something else'})`,
  };
}

async function pathOf({ program, folders = [] }: WantedProgram): Promise<string | undefined> {
  for (const folder of [...folders, ...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin']) {
    const path = join(folder, program);
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return undefined;
}
