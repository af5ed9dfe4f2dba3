import { access, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';

const DOCUMENTS = ['CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', '.changeset/README.md'];

it.each(DOCUMENTS)('%s links to files that exist', async (document) => {
  const text = await readFile(document, 'utf8');
  const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, path = '']) => path);
  for (const path of links) await access(join(dirname(document), path));
});

it('CONTRIBUTING.md runs scripts, tests and projects that exist', async () => {
  const text = await readFile('CONTRIBUTING.md', 'utf8');
  const { scripts } = JSON.parse(await readFile('package.json', 'utf8')) as { scripts: Record<string, string> };
  const called = [...text.matchAll(/npm run ([\w:]+)/g)].map(([, name = '']) => name);
  expect(called).toContain('check');
  for (const name of called) expect(Object.keys(scripts)).toContain(name);

  const paths = [...text.matchAll(/\b((?:test|src)\/[\w./-]+\.ts)\b/g)].map(([, path = '']) => path);
  expect(paths.length).toBeGreaterThan(3);
  for (const path of paths) await access(path);

  const config = await readFile('vitest.config.ts', 'utf8');
  const projects = new Set([...text.matchAll(/--project (\S+)/g)].map(([, name = '']) => name));
  expect(projects).toContain('unit');
  for (const project of projects) expect(config).toContain(`'${project}'`);
});
