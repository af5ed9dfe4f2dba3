import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { ROLES } from '../../src/cli/init/rights.ts';
import { run } from './kit.ts';

/** The commands that a help lists. */
async function commandsOf(...path: string[]): Promise<string[]> {
  const { out } = await run([...path, '--help']);
  const section = /^Commands:\n((?: {2,}.*\n?)+)/m.exec(out)?.[1] ?? '';
  return [...section.matchAll(/^ {2}([a-z][\w-]*)/gm)].map(([, name = '']) => name);
}

/** The first cells of the rows of the table whose head begins with this cell. */
function firstCells(markdown: string, head: string): string[] {
  const lines = markdown.split('\n');
  const start = lines.findIndex((line) => line.split('|')[1]?.trim() === head);
  expect(start, head).toBeGreaterThan(0);
  const end = lines.findIndex((line, at) => at > start && !line.startsWith('|'));
  return lines.slice(start + 2, end).map((line) => /`(.*?)`/.exec(line)?.[1] ?? line);
}

it('docs/cli.md has every command that help lists, its tokens, exit codes and roles', async () => {
  const text = await readFile('docs/cli.md', 'utf8');
  const leaves = await Promise.all(
    (await commandsOf()).map(async (name) => {
      const below = await commandsOf(name);
      const isCommand = below.length === 0 || name === 'relay'; // which runs by itself, too
      return [...(isCommand ? [`tailrace ${name}`] : []), ...below.map((child) => `tailrace ${name} ${child}`)];
    }),
  );
  expect(firstCells(text, 'command').sort()).toEqual(leaves.flat().sort());
  expect(firstCells(text, 'code')).toEqual(['0', '1', '2']);
  expect(firstCells(text, 'role')).toEqual(ROLES.map(({ kind }) => `tailrace_${kind}`));
  const help = (await run(['tail', '--help'])).out;
  const tokens = [...help.matchAll(/%[a-zA-Z](?= )/g)].map(([token]) => token);
  expect(tokens.length).toBeGreaterThanOrEqual(9);
  for (const token of tokens) expect(text).toContain(`\`${token}\``);
});

it('the README has every command', async () => {
  const text = await readFile('README.md', 'utf8');
  expect(firstCells(text, '`tailrace …`').sort()).toEqual((await commandsOf()).sort());
});

it.each(['topics', 'groups', 'dead-letters'])('the help of %s says that it takes --json', async (group) => {
  const { out } = await run([group, '--help']);
  expect(out).toContain(`it is "tailrace ${group} list", with the options of that: --json`);
  expect((await run([group, 'list', '--help'])).out).toMatch(/^ +--json\b/m);
});

it('the help of every command ends with an example that begins with its name', async () => {
  const names = await commandsOf();
  const paths = await Promise.all(
    names.map(async (name) => [[name], ...(await commandsOf(name)).map((child) => [name, child])]),
  );
  for (const path of paths.flat()) {
    const { exitCode, out } = await run([...path, '--help']);
    expect(exitCode).toBe(0);
    if ((await commandsOf(...path)).length > 0) continue;
    expect(out, path.join(' ')).toMatch(new RegExp(`^Examples?:\\n(?:.*\\n)*?.*tailrace ${path[0] ?? ''}`, 'm'));
  }
});
