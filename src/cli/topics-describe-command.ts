import type { Command } from 'commander';
import type pg from 'pg';
import { unknownTopic } from '../broker/postgres/topics.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { big, placesSql, rounded } from './groups-command.ts';
import { exampleHelp } from './help.ts';
import { formatTable } from './table.ts';
import type { Terminal } from './terminal.ts';
import { type Kept, readKept, showKept } from './topic-kept.ts';

/** Adds `tailrace topics describe`. */
export function addTopicsDescribeCommand(topics: Command, terminal: Terminal): void {
  withDatabaseOptions(topics.command('describe'))
    .summary('partitions of a topic, what it keeps, and who reads it')
    .description(
      'Shows a topic: what it keeps; of each partition where it starts and ends, its records (of a compacted topic: offsets, with the holes), how many of them are packed into the log (the others lie in the outbox) with their bytes, and the last append; when partitions were added; and the groups in this database that read it, with how far behind they are in messages and seconds.',
    )
    .argument('<topic>', 'its name')
    .addHelpText('after', exampleHelp('tailrace topics describe orders', 'tailrace topics describe orders --json'))
    .action((topic: string, options: DatabaseOptions) => runDescribe(topic, options, terminal));
}

/** Offsets and counts are text, for JSON's numbers cannot hold all of them. */
interface PartitionReport {
  readonly partition: number;
  readonly start: string;
  readonly end: string;
  readonly records: string;
  readonly packedRecords: string;
  /** Of the packed records, before they were compressed. */
  readonly packedBytes: string;
  /** Of the records that were measured: those of a topic that keeps so many bytes. */
  readonly measuredBytes: string;
  readonly lastAppend: string | null;
}

/** Partitions that were added. */
interface GrowthReport {
  readonly at: string;
  readonly partitionsBefore: number;
}

interface ReaderReport {
  readonly group: string;
  /** Those that read the topic. */
  readonly members: number;
  readonly lag: string | null;
  readonly lagSeconds: number | null;
  readonly deadLetters: string;
}

interface TopicDescription {
  readonly createdAt: string;
  readonly kept: Kept;
  readonly partitions: readonly PartitionReport[];
  readonly growth: readonly GrowthReport[];
  readonly groups: readonly ReaderReport[];
}

async function runDescribe(topic: string, { schema, ...options }: DatabaseOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  const { createdAt, kept, partitions, growth, groups } = await withClient(
    { url, schema, command: 'topics' },
    (client) => readTopic(client, schema, topic),
  );
  const records = String(partitions.reduce((sum, one) => sum + BigInt(one.records), 0n));
  terminal.out(
    options.json === true
      ? `${JSON.stringify({ schema, topic, createdAt, ...kept, records, partitions, growth, groups })}\n`
      : describe(topic, { createdAt, kept, partitions, growth, groups }),
  );
}

/** @throws TailraceError `UNKNOWN_TOPIC`. */
async function readTopic(client: pg.Client, schema: string, topic: string): Promise<TopicDescription> {
  await client.query('begin isolation level repeatable read read only'); // so that all of it is of one moment
  const quoted = quoteSchema(schema);
  const { rows } = await client.query<{ created_at: Date }>(
    `select created_at from ${quoted}.log_topic where name = $1`,
    [topic],
  );
  const kept = await readKept(client, schema, topic);
  if (rows[0] === undefined || kept === undefined) throw unknownTopic(topic);
  return {
    createdAt: rows[0].created_at.toISOString(),
    kept,
    partitions: await readPartitions(client, quoted, topic),
    growth: await readGrowth(client, quoted, topic),
    groups: await readReaders(client, quoted, topic),
  };
}

async function readPartitions(client: pg.Client, schema: string, topic: string): Promise<PartitionReport[]> {
  const { rows } = await client.query<Omit<PartitionReport, 'lastAppend'> & { lastAppend: Date | null }>(
    `select p.partition, p.start::text, greatest(p.start, e.ending)::text as end,
        greatest(0, e.ending - p.start)::text as records, e.packed_records::text as "packedRecords",
        e.packed_bytes::text as "packedBytes", e.last_append as "lastAppend",
        (select coalesce(sum(bytes), 0) from ${schema}.log_segment s
          where s.partition = p.id and s.next_base > p.start)::text as "measuredBytes"
      from ${schema}.log_partition p
      cross join lateral (
        select coalesce(max(base + count), 0) as ending, max(appended_at) as last_append,
          coalesce(sum(base + count - greatest(base, p.start)) filter (where packed is not null), 0) as packed_records,
          coalesce(sum(bytes), 0) as packed_bytes
        from ${schema}.log_entry where partition = p.id and base + count > p.start
      ) e
      where p.topic = $1 order by p.partition`,
    [topic],
  );
  return rows.map((row) => ({ ...row, lastAppend: row.lastAppend?.toISOString() ?? null }));
}

async function readGrowth(client: pg.Client, schema: string, topic: string): Promise<GrowthReport[]> {
  const { rows } = await client.query<{ at: Date; partitionsBefore: number }>(
    `select grown_at as at, partitions_before as "partitionsBefore" from ${schema}.log_topic_growth
      where topic = $1 order by partitions_before`,
    [topic],
  );
  return rows.map(({ at, partitionsBefore }) => ({ at: at.toISOString(), partitionsBefore }));
}

async function readReaders(client: pg.Client, schema: string, topic: string): Promise<ReaderReport[]> {
  const { rows } = await client.query<ReaderReport>(
    `with place as (select * from (${placesSql(schema)}) places where topic = $1)
      select g.name as group, sum(place.lag::bigint)::text as lag, max(place.seconds) as "lagSeconds",
        (select count(*)::int from ${schema}.consumer_member m
          where m.group_name = g.name and $1 = any(m.topics) and m.expires_at > clock_timestamp()) as members,
        (select count(*)::text from ${schema}.parked_message m
          where m.group_name = g.name and m.topic = $1 and m.dead) as "deadLetters"
      from ${schema}.consumer_group g join place on place.group_name = g.name group by g.name order by g.name collate "C"`,
    [topic],
  );
  return rows.map((row) => ({ ...row, lagSeconds: rounded(row.lagSeconds) }));
}

function describe(topic: string, { createdAt, kept, partitions, growth, groups }: TopicDescription): string {
  const added = growth.map(
    ({ at, partitionsBefore }) => `Partitions from ${partitionsBefore} on were added at ${at}.\n`,
  );
  const partitionTable = formatTable(
    ['PARTITION', 'START', 'END', 'RECORDS', 'PACKED', 'PACKED BYTES', 'LAST APPEND'],
    partitions.map(({ partition, start, end, records, packedRecords, packedBytes, lastAppend }) => [
      partition,
      ...[start, end, records, packedRecords, packedBytes].map(BigInt),
      lastAppend,
    ]),
  );
  const groupTable = formatTable(
    ['GROUP', 'MEMBERS', 'LAG', 'SECONDS', 'DEAD LETTERS'],
    groups.map(({ group, members, lag, lagSeconds, deadLetters }) => [
      group,
      members,
      big(lag),
      lagSeconds,
      BigInt(deadLetters),
    ]),
  );
  return [
    `The topic ${topic} was created at ${createdAt} and keeps ${showKept(kept)}.\n${added.join('')}`,
    partitionTable,
    groups.length === 0 ? 'No group in this database reads it.\n' : groupTable,
  ].join('\n');
}
