import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** What the check for dead code says of a small project with the settings of this one. */
async function findings(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tailrace-dead-'));
  try {
    await cp(join(ROOT, 'knip.jsonc'), join(folder, 'knip.jsonc'));
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), text);
    }
    return await knip(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

function knip(cwd: string): Promise<string> {
  const main = join(ROOT, 'node_modules/knip/bin/knip.js');
  const args = [main, '--no-progress', '--no-config-hints'];
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd }, (_error, out, err) => {
      resolve(out + err);
    });
  });
}

const SOUND = {
  'package.json': JSON.stringify({
    name: 'small',
    type: 'module',
    exports: './src/index.ts',
    dependencies: { pg: '*' },
  }),
  'src/index.ts': `import pg from 'pg'; import { used } from './used.ts'; export const a = [pg, used];`,
  'src/used.ts': 'export const used = 1;',
};

it('finds nothing dead where all is used', async () => {
  expect(await findings(SOUND)).toBe('');
});

it.each([
  ['a file', { 'src/dead.ts': 'export const dead = 1;' }, /Unused files[^]*src\/dead\.ts/],
  ['an export', { 'src/used.ts': 'export const used = 1; export const dead = 1;' }, /Unused exports[^]*dead/],
  ['a dependency', { 'src/index.ts': `export { used } from './used.ts';` }, /Unused dependencies[^]*pg/],
  ['one undeclared', { 'src/used.ts': `export { default as used } from 'kysely';` }, /Unlisted dependencies[^]*kysely/],
])('finds %s', async (_what, change, said) => {
  expect(await findings({ ...SOUND, ...change })).toMatch(said);
});
