import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { addCompletionCommand } from './completion-command.ts';
import { withoutPasswords } from './database-url.ts';
import { addDeadLettersCommand } from './dead-letters-command.ts';
import { addDemoCommand } from './demo-command.ts';
import { addDoctorCommand } from './doctor-command.ts';
import { failureOf } from './explain-error.ts';
import { fillFromConfig } from './database-options.ts';
import { failureDocument, usageFailure } from './failure.ts';
import { addGroupsCommand } from './groups-command.ts';
import { addInitCommand } from './init-command.ts';
import { addMaintainCommand } from './maintain-command.ts';
import { addMigrateCommand } from './migrate-command.ts';
import { addPublishCommand } from './publish-command.ts';
import { addRelayCommand } from './relay-command.ts';
import { addTailCommand } from './tail-command.ts';
import { addTopicsCommand } from './topics-command.ts';
import { addTraceCommand } from './trace-command.ts';
import type { Terminal } from './terminal.ts';

/**
 * Runs the command line `args`. Resolves with the exit code: 0 what was asked holds, 1 it does not or could not be done,
 * 2 it could not be understood. With `--json` whatever fails leaves one JSON document on standard output: its own, or what
 * it failed with. Never rejects.
 */
export async function runCommandLine(args: readonly string[], terminal: Terminal): Promise<number> {
  const run: Run = { isJson: asksForJson(args), hasResult: false };
  try {
    await createProgram(watched(terminal, run), run).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    const failure = error instanceof CommanderError ? usageFailure(usageText(error.message)) : failureOf(error);
    const message = withoutPasswords(failure.message);
    if (message !== '' && !(error instanceof CommanderError)) terminal.err(`tailrace: ${message}\n`); // it printed its own
    if (run.isJson && !run.hasResult) terminal.out(failureDocument({ code: failure.code, message }));
    return failure.exitCode;
  }
}

/** What is known of the command that runs. */
interface Run {
  /** Whether one JSON document is asked for. */
  isJson: boolean;
  /** Whether anything stands on standard output. */
  hasResult: boolean;
}

/** As far as one can tell before the options are understood. */
function asksForJson(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return args.slice(0, end < 0 ? undefined : end).includes('--json');
}

function watched(terminal: Terminal, run: Run): Terminal {
  return {
    ...terminal,
    out: (text) => {
      run.hasResult = true;
      terminal.out(text);
    },
    get columns() {
      return terminal.columns;
    },
  };
}

function createProgram(terminal: Terminal, run: Run): Command {
  const program = new Command('tailrace')
    .description('Carries what a Postgres transaction committed to everyone who must react: once, and in order.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand(false)
    .exitOverride()
    .enablePositionalOptions() // an option belongs to the command that it stands behind
    .hook('preAction', (_program, command) => {
      run.isJson = command.opts()['json'] === true;
      fillFromConfig(command, terminal);
    })
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
  addTraceCommand(program, terminal);
  addGroupsCommand(program, terminal);
  addDeadLettersCommand(program, terminal);
  addMaintainCommand(program, terminal);
  addCompletionCommand(program, terminal);
  return program;
}

/** Commander's message as one line that names the program. */
function usageLine(text: string): string {
  return `tailrace: ${withoutPasswords(usageText(text))}\n`;
}

function usageText(text: string): string {
  return text
    .replace(/^error: /, '')
    .replace(/\s*\n\s*/g, ' ')
    .trim();
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}
