import { expect, inject, it } from 'vitest';
import { EXPECTED, runExample, UNORDERED } from './run-example.ts';

it.each(Object.entries(EXPECTED))('%s prints what it should, and ends by itself', async (name, expected) => {
  const lines = await runExample(`examples/${name}`, inject('testServer').adminUrl);
  if (UNORDERED.has(name)) expect(lines.sort()).toEqual([...expected].sort());
  else expect(lines).toEqual(expected);
});
