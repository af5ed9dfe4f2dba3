import { run } from './kit.ts';

/** A command that does something, as its help tells it. */
export interface CommandHelp {
  /** As in `topics create`. */
  readonly name: string;
  /** Its name, and a value for each of its arguments. */
  readonly words: readonly string[];
  readonly help: string;
  has(flag: string): boolean;
}

const ARGUMENTS: Readonly<Record<string, string>> = {
  mode: 'wal',
  new: 'billing-v2',
  old: 'billing',
  place: 'orders/0@0',
  places: '1',
  position: '1',
  positions: '1',
  shell: 'bash',
  topic: 'orders',
};
/** Options that a command cannot do without. */
const NEEDED: Readonly<Record<string, readonly string[]>> = {
  publish: ['--payload', '{}'],
  'dead-letters edit-and-redrive': ['--payload', '{}'],
  'groups canary': ['--percent', '10'],
  'groups seek': ['--topic', 'orders', '--to-earliest'],
  'topics alter': ['--partitions', '9'],
  'topics delete': ['--yes'],
};
/** Will do for a name and for an id. */
const ANYTHING = '00000000-0000-4000-8000-000000000000';

/** Every command of the program, read from its help, so that a new one is looked at without being listed here. */
export async function allCommands(path: readonly string[] = []): Promise<CommandHelp[]> {
  const { out: help } = await run([...path, '--help']);
  const section = /^Commands:\n((?: {2,}.*\n?)+)/m.exec(help)?.[1] ?? '';
  const names = [...section.matchAll(/^ {2}([a-z][\w-]*)/gm)].map(([, name = '']) => name);
  const below = (await Promise.all(names.map((name) => allCommands([...path, name])))).flat();
  const acts = names.length === 0 || /^ {2}--database-url/m.test(help);
  return acts && path.length > 0 ? [commandOf(path, help), ...below] : below;
}

function commandOf(path: readonly string[], help: string): CommandHelp {
  const usage = /^Usage: (.*)$/m.exec(help)?.[1] ?? '';
  const names = [...usage.matchAll(/[<[]([\w-]+)(?:\.\.\.)?[>\]]/g)].flatMap(([, name = '']) => name);
  const values = names
    .filter((name) => name !== 'options' && name !== 'command')
    .map((name) => ARGUMENTS[name] ?? ANYTHING);
  const name = path.join(' ');
  return {
    name,
    words: [...path, ...values, ...(NEEDED[name] ?? [])],
    help,
    has: (flag) => new RegExp(`^ +${flag}\\b`, 'm').test(help),
  };
}
