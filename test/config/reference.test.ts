import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { REFERENCE_PATH, formattedReference } from './formatted-reference.ts';

it('docs/configuration.md is in step with the schema (npm run docs:configuration)', async () => {
  expect(await readFile(REFERENCE_PATH, 'utf8')).toBe(await formattedReference());
});

it('every setting has a description, and a name in the environment', async () => {
  const rows = (await formattedReference()).split('\n').filter((line) => /^\| `/.test(line));
  expect(rows.length).toBeGreaterThan(15);
  for (const row of rows)
    expect(row).toMatch(
      /^\| `[\w.]+` +\| `TAILRACE_[A-Z_]+` +\| (`--[a-z-]+`|none) +\| .+ \| [A-Z].+ Expected: .+\. *\|$/,
    );
});
