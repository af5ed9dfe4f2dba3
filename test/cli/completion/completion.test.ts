import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { run } from '../kit.ts';

const execute = promisify(execFile);

async function script(shell: string): Promise<string> {
  const { exitCode, out, err } = await run(['completion', shell]);
  expect({ exitCode, err }).toEqual({ exitCode: 0, err: '' });
  return out;
}

/** What bash offers for the last of these words. */
async function completions(...words: string[]): Promise<string[]> {
  const lines = [
    await script('bash'),
    `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}`,
    `_tailrace; printf '%s\\n' "\${COMPREPLY[@]}"`,
  ];
  const { stdout } = await execute('bash', ['--norc', '-c', lines.join('\n')]);
  return stdout.split('\n').filter((line) => line !== '');
}

it('bash completes commands, commands below them, options and their values', async () => {
  expect(await completions('tailrace', 'to')).toEqual(['topics']);
  expect(await completions('tailrace', '')).toEqual(
    expect.arrayContaining(['publish', 'tail', 'doctor', 'init', '--help']),
  );
  expect(await completions('tailrace', 'topics', 'c')).toEqual(['create']);
  expect(await completions('tailrace', 'topics', 'create', 'orders', '--par')).toEqual(['--partitions']);
  expect(await completions('tailrace', 'doctor', '--for', '')).toEqual(['app', 'relay', 'consumer']);
  expect(await completions('tailrace', 'completion', 'f')).toEqual(['fish']);
  expect(await completions('tailrace', 'publish', '--k')).toEqual(['--key', '--kind']);
  expect(await completions('tailrace', 'tail', '--config', '')).toEqual([]); // so that bash takes names of files
  // a value is no command, whatever it is called
  expect(await completions('tailrace', 'relay', '--slot', 'switch', '--lease')).toEqual(['--lease-ms']);
});

/** Every command of the help, with its options, as `--help` tells them. */
async function helpTree(path: readonly string[] = []): Promise<{ path: string[]; flags: string[] }[]> {
  const { out } = await run([...path, '--help']);
  const flags = [...out.matchAll(/^ {2}(?:-\w, )?--([\w-]+)/gm)].map(([, flag = '']) => flag);
  const section = /^Commands:\n((?: {2,}.*\n?)+)/m.exec(out)?.[1] ?? '';
  const names = [...section.matchAll(/^ {2}([a-z][\w-]*)/gm)].map(([, name = '']) => name);
  const below = await Promise.all(names.map((name) => helpTree([...path, name])));
  return [{ path: [...path], flags }, ...below.flat()];
}

it.each(['bash', 'zsh', 'fish'])('the script for %s knows every command and option that help shows', async (shell) => {
  const text = await script(shell);
  const tree = await helpTree();
  expect(tree.length).toBeGreaterThanOrEqual(17);
  for (const { path, flags } of tree) {
    const place = path.map((name) => `/${name}`).join('');
    const block = blockOf(shell, text, place);
    for (const flag of flags)
      expect(block, `${place} --${flag}`).toContain(shell === 'fish' ? `-l ${flag} ` : `--${flag}`);
  }
});

/** The part of a script that is about one place. */
function blockOf(shell: string, text: string, place: string): string {
  if (shell === 'fish')
    return text
      .split('\n')
      .filter((line) => line.includes(`= "${place}"'`))
      .join('\n');
  const from = text.lastIndexOf(`    '${place}') `);
  expect(from, place).toBeGreaterThan(0);
  return text.slice(from, text.indexOf(';;', from));
}

it('other shells are refused', async () => {
  const { exitCode, out, err } = await run(['completion', 'tcsh']);
  expect({ exitCode, out }).toEqual({ exitCode: 2, out: '' });
  expect(err).toMatch(/bash, zsh, fish/);
});
