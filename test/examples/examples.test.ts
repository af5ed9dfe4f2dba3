import { readdir } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { EXPECTED, runExample } from './run-example.ts';

it('every example that is a program has its output written down', async () => {
  const files = (await readdir('examples')).filter((name) => name.endsWith('.ts'));
  expect(files.sort()).toEqual(Object.keys(EXPECTED).sort());
});

it('the quickstart runs on a server of its own', async () => {
  expect(await runExample('examples/quickstart.ts')).toEqual(EXPECTED['quickstart.ts']);
});
