import { expect, inject, it } from 'vitest';
import { EXPECTED, ON_THEIR_OWN, runExample, UNORDERED } from './run-example.ts';

const onThisServer = Object.entries(EXPECTED).filter(([name]) => !ON_THEIR_OWN.has(name));

it.each(onThisServer)('%s prints what it should, and ends by itself', async (name, expected) => {
  const lines = await runExample(`examples/${name}`, inject('testServer').adminUrl);
  if (UNORDERED.has(name)) expect(lines.sort()).toEqual([...expected].sort());
  else expect(lines).toEqual(expected);
});
