import { Argument, type Command, Option } from 'commander';
import type pg from 'pg';
import { pause } from '../base/signal.ts';
import { askForMode, readRelayStanding, type RelayStanding } from '../broker/postgres/ask.ts';
import type { RelayMode } from '../broker/log.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { CommandFailure, notFound } from './failure.ts';
import { exampleHelp } from './help.ts';
import type { Terminal } from './terminal.ts';
import { wholeNumber } from './whole-number.ts';

interface SwitchOptions extends DatabaseOptions {
  readonly wait: number;
}

/** Adds `tailrace relay switch`. */
export function addRelaySwitchCommand(relay: Command, terminal: Terminal): void {
  withDatabaseOptions(relay.command('switch'))
    .summary('let the relay read the WAL, or poll, from now on')
    .description(
      'Lets the relay that leads go over to another way of reading, while messages flow: none is lost or doubled. It is kept, also by relays that are started later, until something else is asked for; auto leaves it to their own settings again. Waits until the relay reads like that.',
    )
    .addArgument(new Argument('<mode>', 'how to read').choices(['wal', 'polling', 'auto']))
    .addOption(
      new Option('--wait <seconds>', 'how long to wait for the relay').argParser(wholeNumber(0, 86_400)).default(60),
    )
    .addHelpText('after', exampleHelp('tailrace relay switch polling', 'tailrace relay switch auto --json'))
    .action((mode: RelayMode | 'auto', options: SwitchOptions) => runSwitch(mode, options, terminal));
}

const LOOK_INTERVAL_MS = 100;

async function runSwitch(
  mode: RelayMode | 'auto',
  { schema, wait, ...options }: SwitchOptions,
  terminal: Terminal,
): Promise<void> {
  const wanted = mode === 'auto' ? undefined : mode;
  const url = databaseUrl(options.databaseUrl, terminal);
  const { before, after } = await withClient({ url, schema, command: 'relay switch' }, (client) =>
    switchAndWait(client, schema, wanted, wait * 1_000),
  );
  const { holder, mode: found, reason } = after;
  if (options.json === true) {
    terminal.out(`${JSON.stringify({ schema, holder, asked: mode, before: before.mode, mode: found, reason })}\n`);
  } else if (isDone(after, wanted)) {
    terminal.out(`The relay ${holder} ${doing(found)} now${before.mode === found ? ', as before' : ''}.\n`);
  }
  const problem = problemOf(after, wanted, wait);
  if (problem !== undefined) throw new CommandFailure(problem);
}

async function switchAndWait(
  client: pg.Client,
  schema: string,
  wanted: RelayMode | undefined,
  waitMs: number,
): Promise<{ before: RelayStanding; after: RelayStanding }> {
  const before = await readRelayStanding(client, schema);
  if (before === undefined) {
    throw notFound(
      'No relay has run on this outbox yet, so there is none to ask. tailrace relay --mode says how the first one reads.',
    );
  }
  await askForMode(client, schema, wanted);
  const endsAt = performance.now() + waitMs;
  for (;;) {
    const after = (await readRelayStanding(client, schema)) ?? before;
    if (isDone(after, wanted) || !after.isHeld || performance.now() >= endsAt) return { before, after };
    await pause(LOOK_INTERVAL_MS);
  }
}

/** Where the choice is left to the relay, it is done once the relay has said how it reads. */
function isDone({ isHeld, mode }: RelayStanding, wanted: RelayMode | undefined): boolean {
  return isHeld && mode !== null && (wanted === undefined || wanted === mode);
}

function problemOf(after: RelayStanding, wanted: RelayMode | undefined, waited: number): string | undefined {
  const { holder, isHeld, mode, reason } = after;
  if (isDone(after, wanted)) return undefined;
  if (!isHeld) return 'No relay runs. What you asked for is kept: the next one does it.';
  const found = mode === null ? 'has not answered' : `${doing(mode)}${reason === null ? '' : `: ${reason}`}`;
  return `The relay ${holder} ${found}, after ${waited} s. What you asked for is kept; tailrace doctor shows what the relay does.`;
}

function doing(mode: RelayMode | null): string {
  return mode === 'wal' ? 'reads the WAL' : 'polls';
}
