import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { installDebianPackage } from './debian.ts';

/** A server that is not Postgres: where its program is looked for, and the Debian package that brings it. */
export interface ServerProgram {
  /** As people call it, for messages. */
  readonly name: string;
  /** Set to the URL of a running one, it is taken instead. */
  readonly variable: string;
  readonly program: string;
  /** Looked through before the PATH. */
  readonly folders?: readonly string[];
  readonly debianPackage: string;
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
  const failure = await installIfMissing(wanted);
  const program = await pathOf(wanted);
  if (program !== undefined) return { program };
  throw new Error(
    `The tests need ${wanted.name}: ${wanted.program} is not on the PATH, and not installable (${failure ?? 'apt-get installed something else'}). ` +
      `Install it (Debian: apt-get install ${wanted.debianPackage}), or set ${wanted.variable} to the URL of a running one.`,
  );
}

export function urlInEnvironment(variable: string): string | undefined {
  const url = process.env[variable];
  return url === undefined || url === '' ? undefined : url;
}

async function installIfMissing(wanted: ServerProgram): Promise<string | undefined> {
  return (await pathOf(wanted)) === undefined ? installDebianPackage(wanted.debianPackage) : undefined;
}

async function pathOf({ program, folders = [] }: ServerProgram): Promise<string | undefined> {
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
