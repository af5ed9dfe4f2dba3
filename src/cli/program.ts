import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { addCompletionCommand } from './completion-command.ts';
import { withoutPasswords } from './database-url.ts';
import { addDeadLettersCommand } from './dead-letters-command.ts';
import { addDemoCommand } from './demo-command.ts';
import { addDoctorCommand } from './doctor-command.ts';
import { failureOf } from './explain-error.ts';
import { EXIT_USAGE } from './failure.ts';
import { addGroupsCommand } from './groups-command.ts';
import { addInitCommand } from './init-command.ts';
import { addMigrateCommand } from './migrate-command.ts';
import { addPublishCommand } from './publish-command.ts';
import { addRelayCommand } from './relay-command.ts';
import { addTailCommand } from './tail-command.ts';
import { addTopicsCommand } from './topics-command.ts';
import type { Terminal } from './terminal.ts';

/**
 * Runs the command line `args`. Resolves with the exit code: 0 what was asked holds, 1 it does not or could not be done,
 * 2 it could not be understood. Never rejects.
 */
export async function runCommandLine(args: readonly string[], terminal: Terminal): Promise<number> {
  try {
    await createProgram(terminal).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE; // it has printed its message
    const failure = failureOf(error);
    if (failure.message !== '') terminal.err(`tailrace: ${withoutPasswords(failure.message)}\n`);
    return failure.exitCode;
  }
}

function createProgram(terminal: Terminal): Command {
  const program = new Command('tailrace')
    .description('Carries what a Postgres transaction committed to everyone who must react: once, and in order.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
      outputError: (text) => terminal.err(usageLine(text)),
    })
    .addHelpText('after', '\nSee `tailrace <command> --help` for options and an example of each.');

  addDemoCommand(program, terminal);
  addDoctorCommand(program, terminal);
  addInitCommand(program, terminal);
  addMigrateCommand(program, terminal);
  addRelayCommand(program, terminal);
  addPublishCommand(program, terminal);
  addTailCommand(program, terminal);
  addTopicsCommand(program, terminal);
  addGroupsCommand(program, terminal);
  addDeadLettersCommand(program, terminal);
  addCompletionCommand(program, terminal);
  return program;
}

/** Commander's message as one line that names the program. */
function usageLine(text: string): string {
  const message = text
    .replace(/^error: /, '')
    .replace(/\s*\n\s*/g, ' ')
    .trim();
  return `tailrace: ${withoutPasswords(message)}\n`;
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}
