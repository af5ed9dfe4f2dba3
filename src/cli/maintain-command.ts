import { hostname } from 'node:os';
import { Command, Option } from 'commander';
import { closeClient } from '../postgres/connection.ts';
import { openMaintenanceClient } from '../broker/postgres/maintenance/maintenance.ts';
import { maintain, type RoundResult } from '../broker/postgres/maintenance/round.ts';
import { databaseFailure } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { exampleHelp } from './help.ts';
import { textLogger } from './loggers.ts';
import { durationOrNone } from './quantities.ts';
import type { Terminal } from './terminal.ts';

interface MaintainOptions extends DatabaseOptions {
  readonly keepOutbox?: number | 'none';
}

const DAY_MS = 24 * 3600 * 1000;

/** Adds `tailrace maintain`. */
export function addMaintainCommand(program: Command, terminal: Terminal): void {
  withDatabaseOptions(program.command('maintain'))
    .summary('remove what topics do not keep, and old partitions of the outbox')
    .description(
      'Looks after the log once, as the relay that leads does once a minute: removes records that retention does not keep and those that compaction supersedes, packs what must outlive its partition of the outbox, and removes that partition. Only the owner of the schema can remove partitions: where relays log in as another role, run this as the owner now and then.',
    )
    .addOption(
      new Option(
        '--keep-outbox <time>',
        'how long a partition of the outbox stays once it was written full (default: 1d)',
      ).argParser(durationOrNone),
    )
    .addHelpText('after', exampleHelp('tailrace maintain --keep-outbox 6h'))
    .action((options: MaintainOptions) => runMaintain(options, terminal));
}

async function runMaintain({ schema, keepOutbox, ...options }: MaintainOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  const result = await maintainOnce(url, schema, keepOutbox === 'none' ? 0 : (keepOutbox ?? DAY_MS), terminal);
  terminal.out(options.json === true ? `${JSON.stringify({ schema, ...reportOf(result) })}\n` : textOf(result));
}

async function maintainOnce(
  url: string,
  schema: string,
  keepOutboxMs: number,
  terminal: Terminal,
): Promise<RoundResult> {
  try {
    const client = await openMaintenanceClient(url);
    const logger = textLogger((text) => terminal.err(text), terminal);
    return await maintain(client, { schema, holder: hostname(), keepOutboxMs, logger }).finally(() =>
      closeClient(client),
    );
  } catch (error) {
    throw databaseFailure(error, url, schema);
  }
}

/** `waiting`: partitions that are old enough to leave, and could not yet. */
function reportOf(result: RoundResult): object {
  if (result === 'busy') return { isBusy: true };
  return { isBusy: false, ...result, reason: result.reason ?? null };
}

function textOf(result: RoundResult): string {
  if (result === 'busy') return 'Somebody else is at it.\n';
  const { isOwner, waiting, reason } = result;
  if (waiting === 0) return 'Done: nothing is left to do.\n';
  const why = isOwner ? (reason ?? 'they are looked at the next time') : 'this role does not own the schema';
  return `Done. Partitions of the outbox that could not leave yet: ${waiting}, for ${why}.\n`;
}
