import { Command, Option } from 'commander';
import { checkedUrl } from './database-url.ts';
import { runDemo, type DemoOptions } from './demo/demo.ts';
import { Progress } from './demo/progress.ts';
import { holds } from './demo/read-back.ts';
import { jsonReport, textReport, type Run } from './demo/report.ts';
import { failureOf } from './explain-error.ts';
import { CommandFailure, EXIT_FAILED } from './failure.ts';
import { exampleHelp } from './help.ts';
import { stopSignals } from './stop-signals.ts';
import type { Terminal } from './terminal.ts';
import { wholeNumber } from './whole-number.ts';

interface DemoCommandOptions {
  readonly seconds: number;
  readonly writers: number;
  readonly rate: number;
  readonly databaseUrl?: string;
  readonly keep?: true;
  readonly json?: true;
}

/** Adds `tailrace demo`. */
export function addDemoCommand(program: Command, terminal: Terminal): void {
  program
    .command('demo')
    .summary('watch an order service keep its promises while its parts are killed')
    .description(
      'Runs an order service as separate processes: writers that place orders and publish events in the same transactions, a relay, and two groups of consumers. Kills the relay and a consumer, and switches the relay from the write-ahead log to polling and back, while orders come in. Then reads from the tables whether anything was lost, invented, doubled or reordered. The exit code is 0 only if nothing was.',
    )
    .addOption(numberOption('--seconds <n>', 'how long orders come in, at least', 3, 86_400).default(20))
    .addOption(numberOption('--writers <n>', 'how many processes place orders', 1, 32).default(3))
    .addOption(
      numberOption('--rate <n>', 'how many orders a second they try to place together', 1, 100_000).default(400),
    )
    .option(
      '--database-url <url>',
      'a Postgres server to use (default: starts one in a temporary folder). The demo creates a database there and drops it at the end',
    )
    .option(
      '--keep',
      'keep the database to be looked at: in the server that was named, or until Ctrl-C in one of its own',
    )
    .option('--json', 'print the outcome as one JSON document')
    .addHelpText('after', exampleHelp('tailrace demo', 'tailrace demo --seconds 60 --writers 6 --json'))
    .action((options: DemoCommandOptions) => runDemoCommand(options, terminal));
}

function numberOption(flags: string, description: string, least: number, most: number): Option {
  return new Option(flags, description).argParser(wholeNumber(least, most));
}

async function runDemoCommand(options: DemoCommandOptions, terminal: Terminal): Promise<void> {
  const { seconds, writers, rate, databaseUrl, keep = false } = options;
  const named = databaseUrl !== undefined && { databaseUrl: checkedUrl(databaseUrl, '--database-url') };
  const run = await runToTheEnd({ seconds, writers, rate, keep, ...named }, terminal, (outcome) => {
    terminal.out(options.json === true ? jsonReport(outcome) : textReport(outcome));
  });
  if (!holds(run.findings))
    throw new CommandFailure(options.json === true ? 'The demo found what should not be: see its report.' : '');
}

async function runToTheEnd(options: DemoOptions, terminal: Terminal, present: (run: Run) => void): Promise<Run> {
  const progress = new Progress(terminal);
  using stop = stopSignals(() => {
    progress.say('ending, and removing everything; a second Ctrl-C ends the demo at once');
  });
  try {
    return await runDemo(options, { progress, present, stop: stop.signal });
  } catch (error) {
    progress.end();
    if (stop.signal.aborted)
      throw new CommandFailure('The demo was stopped before its end. Nothing of it is left.', EXIT_FAILED, 'STOPPED');
    throw failureOf(error, options.databaseUrl);
  }
}
