import { readFile, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const SOURCES = fileURLToPath(new URL('../../src/', import.meta.url));

/** The folders in `src/`, and the rooms that stand inside another folder: one for each broker and integration. */
async function rooms(): Promise<string[]> {
  const top = await foldersIn('');
  const inside = await Promise.all(['broker', 'integrations'].filter((name) => top.includes(name)).map(foldersIn));
  return [...top, ...inside.flat()];
}

async function foldersIn(parent: string): Promise<string[]> {
  const entries = await readdir(join(SOURCES, parent), { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(parent, name));
}

const all = await rooms();

it('finds the rooms', () => {
  expect(all).toEqual(expect.arrayContaining(['base', 'outbox', 'broker', 'broker/postgres', 'cli']));
});

it.each(all)('src/%s has a README that says what it is for', async (room) => {
  const text = await readFile(join(SOURCES, room, 'README.md'), 'utf8');
  const [heading, first] = text.split(/\n\n+/);
  expect([`# ${room}`, `# ${basename(room)}`]).toContain(heading);
  expect(first?.length).toBeGreaterThan(30);
});
