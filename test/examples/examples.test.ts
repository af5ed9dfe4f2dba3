import { readdir } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { EXPECTED, ON_THEIR_OWN, runExample } from './run-example.ts';

it('every example that is a program has its output written down', async () => {
  const files = (await readdir('examples')).filter((name) => name.endsWith('.ts'));
  expect(files.sort()).toEqual(Object.keys(EXPECTED).sort());
});

it.each(['quickstart.ts', ...ON_THEIR_OWN])('%s runs on a server of its own', async (name) => {
  expect(await runExample(`examples/${name}`)).toEqual(EXPECTED[name]);
});
