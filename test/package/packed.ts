import { execFile } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root of the repository. */
export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** What the repository's package.json says, as far as tests ask. */
export interface Manifest {
  readonly bin: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, string | { readonly 'tailrace-source': string }>>;
}

export async function readManifest(): Promise<Manifest> {
  return JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as Manifest;
}

/** How a program ended and what it said. */
export interface Ended {
  /** `null` if it was killed. */
  readonly exitCode: number | null;
  /** Standard output, then standard error. */
  readonly said: string;
}

/** Runs a program to its end, for 80 seconds at most. */
export function run(program: string, args: readonly string[], cwd: string): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(program, args, { cwd, timeout: 170_000, maxBuffer: 64_000_000 }, (_error, out, err) => {
      resolve({ exitCode: child.exitCode, said: out + err });
    });
  });
}

/** As {@link run}, and throws what it said if it failed. Returns what it wrote to standard output and standard error. */
export async function mustRun(program: string, args: readonly string[], cwd: string): Promise<string> {
  const { exitCode, said } = await run(program, args, cwd);
  if (exitCode !== 0)
    throw new Error(`${program} ${args.join(' ')} in ${cwd} ended with ${String(exitCode)}:\n${said}`);
  return said;
}

/** Runs a program of the repository's own `node_modules`, such as `tsc`. */
export function runTool(name: string, args: readonly string[], cwd: string): Promise<Ended> {
  return run(join(ROOT, 'node_modules/.bin', name), args, cwd);
}

/** A folder that is removed at the end. */
export async function temporaryFolder(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'tailrace-package-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

const STAGED = [
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'README.md',
  'CHANGELOG.md',
  'LICENSE',
  'src',
  'migrations',
  'docs',
];

/**
 * Builds and packs a copy of the repository with `npm pack`, as a release does, and returns the path of the tarball. The
 * repository's own `dist` is neither read nor changed: others may be running it.
 */
export async function pack(folder: string): Promise<string> {
  for (const name of STAGED) await cp(join(ROOT, name), join(folder, name), { recursive: true });
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  const said = await mustRun('npm', ['pack', '--loglevel=error'], folder);
  const tarball = /^tailrace-.*\.tgz$/m.exec(said)?.[0];
  if (tarball === undefined) throw new Error(`npm pack named no tarball:\n${said}`);
  return join(folder, tarball);
}
