import { Argument, type Command } from 'commander';
import { bashCompletion, fishCompletion, type Place, zshCompletion } from './completion/scripts.ts';
import { exampleHelp } from './help.ts';
import type { Terminal } from './terminal.ts';

const SHELLS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } as const;

/** Adds `tailrace completion`, which knows every command that `program` has when it runs. */
export function addCompletionCommand(program: Command, terminal: Terminal): void {
  program
    .command('completion')
    .summary('print what lets a shell complete commands and options')
    .description('Prints a script that lets a shell complete the commands and options of tailrace.')
    .addArgument(new Argument('<shell>', 'which shell').choices(Object.keys(SHELLS)))
    .addHelpText(
      'after',
      exampleHelp(
        'tailrace completion bash > /etc/bash_completion.d/tailrace',
        'tailrace completion zsh > "${fpath[1]}/_tailrace"',
        'tailrace completion fish > ~/.config/fish/completions/tailrace.fish',
      ),
    )
    .action((shell: keyof typeof SHELLS) => {
      terminal.out(SHELLS[shell](placesOf(program, '')));
    });
}

/** A command and all below it, as shells need them. */
function placesOf(command: Command, path: string): Place[] {
  const help = command.createHelp();
  const commands = help.visibleCommands(command);
  const place: Place = {
    path,
    commands: commands.map((child) => ({ name: child.name(), summary: help.subcommandDescription(child) })),
    options: help.visibleOptions(command).map(({ long, description, argChoices, required, optional }) => ({
      flag: long ?? '',
      summary: description,
      takesValue: required || optional,
      choices: argChoices ?? [],
    })),
    choices: command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
  };
  return [place, ...commands.flatMap((child) => placesOf(child, `${path}/${child.name()}`))];
}
