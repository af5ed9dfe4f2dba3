import { type Command, InvalidArgumentError, Option } from 'commander';
import { postgresLog } from '../broker/postgres/index.ts';
import { seekGroup, type SeekMove, type SeekTarget } from '../consumer/seek.ts';
import { withPool } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { usageFailure } from './failure.ts';
import { exampleHelp } from './help.ts';
import { formatTable } from './table.ts';
import type { Terminal } from './terminal.ts';
import { wholeNumber } from './whole-number.ts';

interface SeekCommandOptions extends DatabaseOptions {
  readonly topic: string;
  readonly partition?: number;
  readonly toOffset?: bigint;
  readonly toTime?: Date;
  readonly toEarliest?: true;
  readonly toLatest?: true;
  readonly by?: bigint;
  readonly dryRun?: true;
}

/** Adds `tailrace groups seek`. */
export function addGroupsSeekCommand(groups: Command, terminal: Terminal): void {
  withDatabaseOptions(groups.command('seek'))
    .summary('move a group to another place in a topic')
    .description(
      'Moves a group to another place in a topic, also while its members run: they let go of what they hold of it, and go on at the new place. Back: the messages from there on are handled again, and handlers are told that they are replays. Forward: the messages between are not handled. All partitions move, or none.',
    )
    .argument('<group>', 'its name')
    .requiredOption('--topic <topic>', 'where to move it')
    .addOption(
      new Option('--partition <n>', 'only in this partition (default: in all that the group knows)').argParser(
        wholeNumber(0, 9_999),
      ),
    )
    .addOption(new Option('--to-offset <n>', 'to this offset').argParser(offsetOf))
    .addOption(
      new Option('--to-time <time>', 'to the first message appended at 2026-01-31T09:00:00Z or later').argParser(
        timeOf,
      ),
    )
    .option('--to-earliest', 'to the first message that there is')
    .option('--to-latest', 'behind the last message')
    .addOption(new Option('--by <n>', 'by so many messages: -100 is back').argParser(distanceOf))
    .option('--dry-run', 'only show what would be changed')
    .addHelpText(
      'after',
      exampleHelp(
        'tailrace groups seek billing --topic orders --to-time 2026-01-31T09:00:00Z --dry-run',
        'tailrace groups seek billing --topic orders --partition 3 --by -100',
      ),
    )
    .action((group: string, options: SeekCommandOptions) => runSeek(group, options, terminal));
}

async function runSeek(group: string, options: SeekCommandOptions, terminal: Terminal): Promise<void> {
  const { schema, topic, partition, dryRun = false } = options;
  const to = targetOf(options);
  const url = databaseUrl(options.databaseUrl, terminal);
  const moves = await withPool({ url, schema, command: 'groups' }, async (database) => {
    const log = postgresLog({ connectionString: url, schema });
    const place = { log, database, schema, group, topic, ...(partition !== undefined && { partition }) };
    return seekGroup({ ...place, to, dryRun }).finally(() => log.close());
  });
  const partitions = moves.map(({ partition: at, from, to: place }) => ({
    partition: at,
    from: `${from}`,
    to: `${place}`,
    again: `${place < from ? from - place : 0n}`,
    skipped: `${place > from ? place - from : 0n}`,
  }));
  if (options.json === true) terminal.out(`${JSON.stringify({ group, topic, dryRun, partitions })}\n`);
  else terminal.out(textOf(moves, dryRun));
}

function targetOf({ toOffset, toTime, toEarliest, toLatest, by }: SeekCommandOptions): SeekTarget {
  const targets: SeekTarget[] = [
    ...(toOffset === undefined ? [] : [{ offset: toOffset }]),
    ...(toTime === undefined ? [] : [{ time: toTime }]),
    ...(toEarliest === undefined ? [] : ['earliest' as const]),
    ...(toLatest === undefined ? [] : ['latest' as const]),
    ...(by === undefined ? [] : [{ by }]),
  ];
  const [target] = targets;
  if (target !== undefined && targets.length === 1) return target;
  throw usageFailure(
    `Expected one of --to-offset, --to-time, --to-earliest, --to-latest and --by, found ${targets.length}.`,
  );
}

function textOf(moves: readonly SeekMove[], dryRun: boolean): string {
  const table = formatTable(
    ['PARTITION', 'FROM', 'TO', 'AGAIN', 'SKIPPED'],
    moves.map(({ partition, from, to }) => [
      partition,
      from,
      to,
      to < from ? from - to : 0n,
      to > from ? to - from : 0n,
    ]),
  );
  return `${table}${dryRun ? 'Nothing was changed: --dry-run.' : 'The group goes on there.'}\n`;
}

function offsetOf(text: string): bigint {
  if (/^\d{1,18}$/.test(text)) return BigInt(text);
  throw new InvalidArgumentError('Expected an offset: a whole number, 0 or more.');
}

function distanceOf(text: string): bigint {
  if (/^[+-]?\d{1,18}$/.test(text)) return BigInt(text.replace(/^\+/, ''));
  throw new InvalidArgumentError('Expected a whole number, such as -100.');
}

function timeOf(text: string): Date {
  const time = new Date(text);
  if (!Number.isNaN(time.getTime())) return time;
  throw new InvalidArgumentError('Expected a time, such as 2026-01-31T09:00:00Z.');
}
