import type { Command } from 'commander';

/** The end of a command's help: how it is called. */
export function exampleHelp(...lines: readonly string[]): string {
  const title = lines.length === 1 ? 'Example:' : 'Examples:';
  return ['', title, ...lines.map((line) => `  ${line}`)].join('\n');
}

/** Makes a command the one of its group that is meant where none is named; what is no command of the group is refused as such. */
export function asDefaultCommand(group: Command, command: Command): Command {
  return command.allowExcessArguments(true).hook('preAction', ({ args: [found] }) => {
    if (found === undefined) return;
    const names = group.commands.map((each) => each.name()).join(', ');
    command.error(`error: unknown command '${found}' of tailrace ${group.name()}. Expected ${names}.`);
  });
}

/** The end of the help of a group of commands, of which one is meant where none is named. */
export function defaultCommandHelp(command: string): string {
  return `\nWithout a command it is "${command}", with the options of that: --json and those that ${command} --help tells.`;
}
