import { Command, Option } from 'commander';
import type pg from 'pg';
import { postgresLog, type PostgresLog } from '../broker/postgres/index.ts';
import { isTailraceError } from '../base/errors.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { databaseFailure, withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { usageFailure } from './failure.ts';
import { defaultCommandHelp, exampleHelp } from './help.ts';
import { formatTable } from './table.ts';
import type { Terminal } from './terminal.ts';
import { wholeNumber } from './whole-number.ts';

interface CreateOptions extends DatabaseOptions {
  readonly partitions: number;
}

/** Adds `tailrace topics`. */
export function addTopicsCommand(program: Command, terminal: Terminal): void {
  const topics = program
    .command('topics')
    .helpCommand(false)
    .summary('list topics, create one, or add partitions')
    .description('Lists topics, creates one, or gives one more partitions.')
    .addHelpText('after', defaultCommandHelp('tailrace topics list'));
  withDatabaseOptions(topics.command('list', { isDefault: true }))
    .summary('partitions, offsets and sizes')
    .description(
      'Lists the topics of the log: partitions, the offsets at which they start and end, and the last append.',
    )
    .addHelpText('after', exampleHelp('tailrace topics', 'tailrace topics list --json'))
    .action((options: DatabaseOptions) => runList(options, terminal));
  withDatabaseOptions(topics.command('create'))
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
    .addHelpText('after', exampleHelp('tailrace topics create orders --partitions 16'))
    .action((topic: string, options: CreateOptions) => runCreate(topic, options, terminal));
  withDatabaseOptions(topics.command('alter'))
    .summary('give a topic more partitions while it is used')
    .description(
      'Gives a topic more partitions while relays and consumers run. Messages of a key stay in order: a group reads an added partition once it has come to where the others ended at the change. Partitions cannot be removed.',
    )
    .argument('<topic>', 'its name')
    .addOption(
      new Option('--partitions <n>', 'how many it is to have in all: more than now')
        .argParser(wholeNumber(1, 10_000))
        .makeOptionMandatory(),
    )
    .addHelpText('after', exampleHelp('tailrace topics alter orders --partitions 32'))
    .action((topic: string, options: CreateOptions) => runAlter(topic, options, terminal));
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
    `select p.topic, p.partition, coalesce(first.base, 0)::text as start, coalesce(last.base + last.count, 0)::text as end,
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
  await withLog({ schema, ...options }, terminal, (log) => log.createTopic(topic, partitions));
  const report = { schema, topic, partitions };
  terminal.out(
    options.json === true
      ? `${JSON.stringify(report)}\n`
      : `The topic ${topic} exists with ${partitions} partitions.\n`,
  );
}

async function runAlter(
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
