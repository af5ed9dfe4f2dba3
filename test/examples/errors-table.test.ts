import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';

/** The rows of the Markdown table under a heading of its own, as cells. */
function rowsOf(markdown: string, firstColumn: string): string[][] {
  const lines = markdown.split('\n');
  const head = lines.findIndex((line) => new RegExp(`^\\|\\s*${firstColumn}\\s*\\|`).test(line));
  if (head < 0) throw new Error(`No table with the column ${firstColumn}.`);
  const end = lines.findIndex((line, at) => at > head && !line.startsWith('|'));
  return lines.slice(head + 2, end < 0 ? undefined : end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** The members of a union of strings, as the source text has them. */
async function unionOf(path: string, name: string): Promise<string[]> {
  const source = await readFile(path, 'utf8');
  const body = new RegExp(`export type ${name} =([^;]*);`).exec(source)?.[1] ?? '';
  return [...body.matchAll(/'(\w+)'/g)].map(([, member = '']) => member);
}

it.each([
  ['code', 'src/base/errors.ts', 'ErrorCode', 30],
  ['reason', 'src/consumer/park-note.ts', 'ParkReason', 3],
])('docs/errors.md has every %s once, in the order of the source', async (column, path, name, atLeast) => {
  const members = await unionOf(path, name);
  expect(members.length).toBeGreaterThanOrEqual(atLeast);
  const rows = rowsOf(await readFile('docs/errors.md', 'utf8'), column);
  expect(rows.map(([code]) => code)).toEqual(members.map((member) => `\`${member}\``));
  for (const row of rows) expect(row.filter((cell) => cell !== '')).toHaveLength(3);
});
