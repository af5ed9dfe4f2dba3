import { Command, Option } from 'commander';
import type pg from 'pg';
import { postgresLog, type PostgresLog, type TopicSettings } from '../broker/postgres/index.ts';
import { isTailraceError } from '../base/errors.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { databaseFailure, withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { usageFailure } from './failure.ts';
import { asDefaultCommand, defaultCommandHelp, exampleHelp } from './help.ts';
import { bytesOrNone, durationOrNone } from './quantities.ts';
import { formatTable } from './table.ts';
import type { Terminal } from './terminal.ts';
import { readKept, showKept } from './topic-kept.ts';
import { addTopicsDeleteCommand } from './topics-delete-command.ts';
import { addTopicsDescribeCommand } from './topics-describe-command.ts';
import { wholeNumber } from './whole-number.ts';

interface RetentionOptions extends DatabaseOptions {
  readonly retention?: number | 'none';
  readonly retentionBytes?: number | 'none';
  readonly compact?: boolean;
  readonly minCompactionLag?: number | 'none';
  readonly deleteRetention?: number | 'none';
}

interface CreateOptions extends RetentionOptions {
  readonly partitions: number;
}

/** Adds `tailrace topics`. */
export function addTopicsCommand(program: Command, terminal: Terminal): void {
  const topics = program
    .command('topics')
    .helpCommand(false)
    .summary('list topics, describe, create, change or delete one')
    .description(
      'Lists topics, describes one, creates one, changes what it keeps, gives it more partitions, or deletes it.',
    )
    .addHelpText('after', defaultCommandHelp('tailrace topics list'));
  asDefaultCommand(topics, withDatabaseOptions(topics.command('list', { isDefault: true })))
    .summary('partitions, offsets and sizes')
    .description(
      'Lists the topics of the log: partitions, the offsets at which they start and end, and the last append.',
    )
    .addHelpText('after', exampleHelp('tailrace topics', 'tailrace topics list --json'))
    .action((options: DatabaseOptions) => runList(options, terminal));
  withRetentionOptions(withDatabaseOptions(topics.command('create')))
    .summary('create a topic ahead of its first message')
    .description(
      'Creates a topic ahead of its first message. The number of partitions bounds how many members of a group share the work.',
    )
    .argument('<topic>', 'its name')
    .addOption(
      new Option('--partitions <n>', 'how many (default: log.partitions of the config, else 8)').argParser(
        wholeNumber(1, 10_000),
      ),
    )
    .addHelpText(
      'after',
      exampleHelp(
        'tailrace topics create orders --partitions 16',
        'tailrace topics create clicks --retention 7d',
        'tailrace topics create customers --compact',
      ),
    )
    .action((topic: string, options: CreateOptions) => runCreate(topic, options, terminal));
  const alter = withRetentionOptions(withDatabaseOptions(topics.command('alter')));
  let asksForPartitions = false; // the option has a value in any case: that of the config
  alter.on('option:partitions', () => (asksForPartitions = true));
  alter
    .summary('change what a topic keeps, or give it more partitions')
    .description(
      'Changes what a topic keeps: what it keeps no longer is removed by the relay within minutes, and is gone for good. Or gives a topic more partitions while relays and consumers run. Messages of a key stay in order: a group reads an added partition once it has come to where the others ended at the change. Partitions cannot be removed.',
    )
    .argument('<topic>', 'its name')
    .addOption(
      new Option('--partitions <n>', 'how many it is to have in all: more than now').argParser(wholeNumber(1, 10_000)),
    )
    .addHelpText(
      'after',
      exampleHelp(
        'tailrace topics alter orders --partitions 32',
        'tailrace topics alter clicks --retention 7d --retention-bytes 10GB',
      ),
    )
    .action((topic: string, { partitions, ...options }: CreateOptions) =>
      runAlter(topic, { ...options, partitions: asksForPartitions ? partitions : undefined }, terminal),
    );
  addTopicsDescribeCommand(topics, terminal);
  addTopicsDeleteCommand(topics, terminal);
}

function withRetentionOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--retention <time>', 'keep records for so long, as in 7d, or none for ever').argParser(
        durationOrNone,
      ),
    )
    .addOption(
      new Option(
        '--retention-bytes <size>',
        'keep about so many bytes in each partition, as in 10GB, or none',
      ).argParser(bytesOrNone),
    )
    .option('--compact', 'remove the records of a key that a later one supersedes')
    .option('--no-compact', 'keep them from now on')
    .addOption(
      new Option(
        '--min-compaction-lag <time>',
        'never compact records that are younger, as in 1h, or none (at first: 1h)',
      ).argParser(durationOrNone),
    )
    .addOption(
      new Option(
        '--delete-retention <time>',
        'keep delete markers for so long after what they delete, as in 1d, or none (at first: 1d)',
      ).argParser(durationOrNone),
    );
}

/** Where none of the options was given, there is nothing to change. */
function settingsOf(options: Omit<RetentionOptions, 'schema'>): TopicSettings | undefined {
  const settings = {
    retentionMs: limitOf(options.retention),
    retentionBytes: limitOf(options.retentionBytes),
    compact: options.compact,
    minCompactionLagMs: durationOf(options.minCompactionLag),
    deleteRetentionMs: durationOf(options.deleteRetention),
  };
  return Object.values(settings).every((value) => value === undefined) ? undefined : settings;
}

interface PartitionRow {
  readonly topic: string;
  readonly partition: number;
  readonly start: string;
  readonly end: string;
  readonly last_append: Date | null;
}

async function runList({ schema, ...options }: DatabaseOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  const rows = await withClient({ url, schema, command: 'topics' }, (client) => readPartitions(client, schema));
  const topics = [...Map.groupBy(rows, ({ topic }) => topic)].map(([topic, parts]) => topicOf(topic, parts));
  terminal.out(options.json === true ? `${JSON.stringify({ schema, topics })}\n` : textOf(topics));
}

async function readPartitions(client: pg.Client, schema: string): Promise<PartitionRow[]> {
  const quoted = quoteSchema(schema);
  const { rows } = await client.query<PartitionRow>(
    `select p.topic, p.partition, greatest(p.start, first.base)::text as start, coalesce(last.base + last.count, 0)::text as end,
        last.appended_at as last_append
      from ${quoted}.log_partition p
      left join lateral (select base from ${quoted}.log_entry where partition = p.id order by base limit 1) first on true
      left join lateral (
        select base, count, appended_at from ${quoted}.log_entry where partition = p.id order by base desc limit 1
      ) last on true
      order by p.topic collate "C", p.partition`,
  );
  return rows;
}

/** A topic as it is reported. Offsets are text, for JSON's numbers cannot hold all of them. */
interface TopicReport {
  readonly topic: string;
  readonly records: string;
  readonly lastAppend: string | null;
  readonly partitions: readonly { readonly partition: number; readonly start: string; readonly end: string }[];
}

function topicOf(topic: string, rows: readonly PartitionRow[]): TopicReport {
  const records = rows.reduce((sum, { start, end }) => sum + BigInt(end) - BigInt(start), 0n);
  const times = rows.flatMap(({ last_append }) => last_append?.getTime() ?? []);
  return {
    topic,
    records: String(records),
    lastAppend: times.length === 0 ? null : new Date(Math.max(...times)).toISOString(),
    partitions: rows.map(({ partition, start, end }) => ({ partition, start, end })),
  };
}

function textOf(topics: readonly TopicReport[]): string {
  if (topics.length === 0) return 'There are no topics yet: the relay creates one with its first message.\n';
  return formatTable(
    ['TOPIC', 'PARTITIONS', 'RECORDS', 'LAST APPEND', 'OFFSETS'],
    topics.map(({ topic, partitions, records, lastAppend }) => [
      topic,
      partitions.length,
      BigInt(records),
      lastAppend,
      partitions.map(({ partition, start, end }) => `${partition}:${start}-${end}`).join(' '),
    ]),
  );
}

async function runCreate(
  topic: string,
  { schema, partitions, ...options }: CreateOptions,
  terminal: Terminal,
): Promise<void> {
  const ofCompaction = options.minCompactionLag !== undefined || options.deleteRetention !== undefined;
  if (ofCompaction && options.compact !== true) {
    throw usageFailure(
      '--min-compaction-lag and --delete-retention say how a topic is compacted, and this one would not be. Add --compact, or leave them out.',
    );
  }
  const settings = settingsOf(options);
  const created = await withLog({ schema, ...options }, terminal, async (log) => {
    const isThere = (await log.partitionCount(topic)) > 0;
    await log.createTopic(topic, partitions, settings);
    return !isThere;
  });
  const text = created
    ? `The topic ${topic} was created with ${partitions} partitions.`
    : `The topic ${topic} exists already with ${partitions} partitions, ${settings === undefined ? 'and was left as it is' : 'and keeps from now on what was asked for'}. tailrace topics describe ${topic} shows it; tailrace topics alter ${topic} changes it.`;
  terminal.out(options.json === true ? `${JSON.stringify({ schema, topic, partitions, created })}\n` : `${text}\n`);
}

async function runAlter(
  topic: string,
  { schema, partitions, ...options }: Omit<CreateOptions, 'partitions'> & { readonly partitions: number | undefined },
  terminal: Terminal,
): Promise<void> {
  const settings = settingsOf(options);
  if (settings === undefined && partitions === undefined) {
    throw usageFailure(
      'There is nothing to change: name --partitions, or what the topic keeps, such as --retention or --compact.',
    );
  }
  if (settings !== undefined && partitions !== undefined) {
    throw usageFailure('Name --partitions, or what the topic keeps, not both: each is a step of its own.');
  }
  if (settings !== undefined) await runAlterKept(topic, settings, { schema, ...options }, terminal);
  if (partitions !== undefined) await runGrow(topic, { schema, partitions, ...options }, terminal);
}

async function runGrow(
  topic: string,
  { schema, partitions, ...options }: CreateOptions,
  terminal: Terminal,
): Promise<void> {
  const from = await withLog({ schema, ...options }, terminal, async (log) => {
    const count = await log.partitionCount(topic);
    await log.addPartitions(topic, partitions);
    return count;
  });
  const report = { schema, topic, from, partitions };
  terminal.out(
    options.json === true
      ? `${JSON.stringify(report)}\n`
      : `The topic ${topic} has ${partitions} partitions now; it had ${from}.\n`,
  );
}

async function withLog<Result>(
  { schema, databaseUrl: given }: DatabaseOptions,
  terminal: Terminal,
  work: (log: PostgresLog) => Promise<Result>,
): Promise<Result> {
  const url = databaseUrl(given, terminal);
  try {
    const log = postgresLog({ connectionString: url, schema });
    return await work(log).finally(() => log.close());
  } catch (error) {
    if (isTailraceError(error, 'INVALID_TOPIC')) throw usageFailure(error.message);
    throw databaseFailure(error, url, schema);
  }
}

async function runAlterKept(
  topic: string,
  settings: TopicSettings,
  { schema, ...options }: DatabaseOptions,
  terminal: Terminal,
): Promise<void> {
  await withLog({ schema, ...options }, terminal, (log) => log.alterTopic(topic, settings));
  const url = databaseUrl(options.databaseUrl, terminal);
  const kept = await withClient({ url, schema, command: 'topics' }, (client) => readKept(client, schema, topic));
  terminal.out(
    options.json === true
      ? `${JSON.stringify({ schema, topic, ...kept })}\n`
      : `The topic ${topic} keeps ${kept === undefined ? 'nothing any more' : showKept(kept)}.\n`,
  );
}

function durationOf(given: number | 'none' | undefined): number | undefined {
  return given === 'none' ? 0 : given;
}

function limitOf(given: number | 'none' | undefined): number | null | undefined {
  return given === 'none' ? null : given;
}
