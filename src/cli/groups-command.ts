import { Command } from 'commander';
import type pg from 'pg';
import { unknownGroup } from '../consumer/group-admin.ts';
import type { ConsumerMode } from '../consumer/options.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { asDefaultCommand, defaultCommandHelp, exampleHelp } from './help.ts';
import { addGroupsDeleteCommand } from './groups-delete-command.ts';
import { addGroupsDeploymentCommands } from './groups-deployment-commands.ts';
import { addGroupsSeekCommand } from './groups-seek-command.ts';
import { assertGroup } from './known-group.ts';
import { formatTable } from './table.ts';
import type { Terminal } from './terminal.ts';

/** Adds `tailrace groups`. */
export function addGroupsCommand(program: Command, terminal: Terminal): void {
  const groups = program
    .command('groups')
    .helpCommand(false)
    .summary('list consumer groups, show how far one is, move, replace or delete it')
    .description(
      'Lists consumer groups, shows one (its members, and how far it is in each partition), moves, clones, replaces or deletes it.',
    )
    .addHelpText('after', defaultCommandHelp('tailrace groups list'));
  asDefaultCommand(groups, withDatabaseOptions(groups.command('list', { isDefault: true })))
    .summary('members, dead letters and lag of all groups')
    .description('Lists the groups in this database, with their members, dead letters and lag.')
    .addHelpText('after', exampleHelp('tailrace groups', 'tailrace groups list --json'))
    .action((options: DatabaseOptions) => runList(options, terminal));
  withDatabaseOptions(groups.command('describe').alias('show'))
    .summary('members of a group, and its place in each partition')
    .description(
      'Shows the members of a group (host, lease, static or not) and, for each partition, its owner, epoch and generation, where the group is (every message before is done), the end, how far behind the group is in messages and seconds, and how many of these messages are in its inbox.',
    )
    .argument('<group>', 'its name')
    .addHelpText('after', exampleHelp('tailrace groups describe billing'))
    .action((group: string, options: DatabaseOptions) => runShow(group, options, terminal));
  addGroupsSeekCommand(groups, terminal);
  addGroupsDeploymentCommands(groups, terminal);
  addGroupsDeleteCommand(groups, terminal);
}

/**
 * `stored` is how many of the messages behind are in the group's inbox, `lag` how many there are; `seconds` since the first of
 * them was appended. `lag` and `seconds` are null where this database does not hold the log of the topic. `beyond`: the place is
 * one that the log has not come to, as after the log was restored or lost its tail.
 */
export function placesSql(schema: string): string {
  return `select c.group_name, c.topic, c.partition, c.owner, c.wanted, c.epoch::text as epoch, c.generation, c.next_offset::text as next_offset, tail.next_offset::text as end,
      (case when c.stored_to > c.next_offset then c.stored_to - c.next_offset else 0 end)::text as stored,
      (case when tail.next_offset > c.next_offset then tail.next_offset - c.next_offset when p.id is not null then 0 end)::text as lag,
      case when p.id is not null then case when tail.next_offset > c.next_offset then
        extract(epoch from clock_timestamp() - due.appended_at)::float8 else 0 end end as seconds,
      coalesce(c.next_offset > tail.next_offset, false) as beyond
    from ${schema}.consumer_cursor c
    left join ${schema}.log_partition p using (topic, partition)
    left join lateral (
      select coalesce((select base + count from ${schema}.log_entry where partition = p.id order by base desc limit 1), 0)
        as next_offset where p.id is not null
    ) tail on true
    left join lateral (
      select appended_at from ${schema}.log_entry where partition = p.id and base <= c.next_offset order by base desc limit 1
    ) due on true`;
}

/** A group as the list has it. Counts are text; `lag` and `seconds` are null where the log is in another database. */
export interface GroupRow {
  readonly name: string;
  readonly generation: number;
  readonly members: number;
  readonly dead: string;
  readonly lag: string | null;
  readonly seconds: number | null;
  /** In how many partitions its place is beyond the end of the log. */
  readonly beyond: number;
  /** The topics in which it has a place, and those of them that the log in this database does not have. */
  readonly topics: readonly string[];
  readonly unknown_topics: readonly string[];
  /** Whether it is, or was, in a cutover: then another group may have its places. */
  readonly in_cutover: boolean;
}

async function runList({ schema, ...options }: DatabaseOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  const rows = await withClient({ url, schema, command: 'groups' }, (client) =>
    readGroups(client, quoteSchema(schema)),
  );
  const groups = rows.map(({ name, generation, members, dead, lag, seconds, beyond, topics, unknown_topics }) => ({
    group: name,
    generation,
    members,
    deadLetters: dead,
    lag,
    lagSeconds: rounded(seconds),
    partitionsBeyondEnd: beyond,
    topics,
    unknownTopics: unknown_topics,
  }));
  if (options.json === true) terminal.out(`${JSON.stringify({ schema, groups })}\n`);
  else if (groups.length === 0)
    terminal.out('There are no consumer groups yet: a group begins with its first member.\n');
  else {
    terminal.out(
      formatTable(
        ['GROUP', 'MEMBERS', 'LAG', 'SECONDS', 'DEAD LETTERS'],
        groups.map(({ group, members, lag, lagSeconds, deadLetters }) => [
          group,
          members,
          big(lag),
          lagSeconds,
          BigInt(deadLetters),
        ]),
      ),
    );
    for (const row of rows) for (const note of notesOf(row)) terminal.out(`\n${note}\n`);
  }
}

/** What a row of the list does not say by itself. */
function notesOf({ name, members, beyond, topics, unknown_topics, in_cutover }: GroupRow): string[] {
  const isWithoutPlace = topics.length === 0 && members === 0 && !in_cutover;
  return [
    ...(beyond > 0 ? [`${beyondText(`${name} is`, beyond)} See: tailrace groups describe ${name}`] : []),
    ...(unknown_topics.length > 0 ? [unknownTopicsText(`${name} has places`, unknown_topics)] : []),
    ...(isWithoutPlace ? [`${noPlaceText(name)} To forget it: tailrace groups delete ${name}`] : []),
  ];
}

/** That a topic is gone, and that the log is in another database, look alike from here. */
function unknownTopicsText(who: string, topics: readonly string[]): string {
  const named = topics.slice(0, 5).join(', ') + (topics.length > 5 ? ` and ${topics.length - 5} more` : '');
  return `${who} in topics that are not in this database: ${named}. Their log is in another one, or they are gone; how far behind it is, is not known here.`;
}

function noPlaceText(who: string): string {
  return `${who} has no place in any topic, as after its topics were deleted, and no member.`;
}

/** What it means that a place is beyond the end, and the way out. */
function beyondText(who: string, partitions: number): string {
  const where = partitions === 1 ? 'one partition' : `${partitions} partitions`;
  return `${who} beyond the end of the log in ${where}, as after the log was restored from a backup: what is appended up to there will not be handled. Expected a place up to the end: tailrace groups seek moves it.`;
}

/** All groups of a database. `schema` is quoted. */
export async function readGroups(client: pg.Client, schema: string): Promise<GroupRow[]> {
  const { rows } = await client.query<GroupRow>(
    `with place as (${placesSql(schema)}),
      total as (select group_name, sum(lag::bigint)::text as lag, max(seconds) as seconds,
        count(*) filter (where beyond)::int as beyond, array_agg(distinct topic) as topics,
        array_agg(distinct topic) filter (where "end" is null) as unknown_topics from place group by 1)
    select g.name, g.generation, lag, seconds, coalesce(beyond, 0) as beyond,
      coalesce(topics, '{}') as topics, coalesce(unknown_topics, '{}') as unknown_topics,
      g.follows is not null or g.hands_over_to is not null as in_cutover,
      (select count(*)::int from ${schema}.consumer_member m where m.group_name = g.name and m.expires_at > clock_timestamp()) as members,
      (select count(*)::text from ${schema}.parked_message m where m.group_name = g.name and m.dead) as dead
    from ${schema}.consumer_group g left join total on total.group_name = g.name order by g.name collate "C"`,
  );
  return rows;
}

interface PlaceRow {
  readonly topic: string;
  readonly partition: number;
  readonly owner: string | null;
  readonly wanted: string | null;
  readonly epoch: string;
  readonly generation: number;
  readonly next_offset: string;
  readonly end: string | null;
  readonly stored: string;
  readonly lag: string | null;
  readonly seconds: number | null;
  readonly beyond: boolean;
}

interface MemberRow {
  readonly member_id: string;
  readonly topics: readonly string[];
  readonly lease_seconds: number;
  readonly static_lease_ms: number | null;
  readonly canary: boolean;
  readonly host: string | null;
  readonly joined_at: Date;
  /** Records of a work queue that it has in hand. */
  readonly in_hand: string;
}

interface DeploymentRow {
  readonly ephemeral: boolean;
  readonly follows: string | null;
  readonly hands_over_to: string | null;
  readonly handed_over_at: Date | null;
  readonly canary_percent: number;
  readonly mode: ConsumerMode;
}

/** What is out of the ordinary about a group. */
function deploymentText({
  mode,
  ephemeral,
  follows,
  hands_over_to,
  handed_over_at,
  canary_percent,
}: DeploymentRow): string {
  const lines = [
    ...(mode === 'work-queue' ? ['It is a work queue: its members share the records of all partitions.'] : []),
    ...(ephemeral ? ['It is ephemeral: it goes with its process.'] : []),
    ...(follows === null ? [] : [`It waits to take over from ${follows}.`]),
    ...(hands_over_to === null || handed_over_at !== null ? [] : [`It is handing over to ${hands_over_to}.`]),
    ...(handed_over_at === null ? [] : [`It has handed over to ${hands_over_to}.`]),
    ...(canary_percent === 0 ? [] : [`Canaries get ${canary_percent} percent of the partitions.`]),
  ];
  return lines.map((line) => `${line}\n`).join('');
}

async function runShow(group: string, { schema, ...options }: DatabaseOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  const { row, members, places } = await withClient({ url, schema, command: 'groups' }, (client) =>
    assertGroup(client, schema, group).then(() => readGroup(client, quoteSchema(schema), group)),
  );
  const report = {
    group,
    mode: row.mode,
    ephemeral: row.ephemeral,
    follows: row.follows,
    handsOverTo: row.hands_over_to,
    handedOverAt: row.handed_over_at?.toISOString() ?? null,
    canaryPercent: row.canary_percent,
    members: members.map(({ member_id, topics, lease_seconds, static_lease_ms, canary, host, joined_at, in_hand }) => ({
      member: member_id,
      host,
      topics,
      leaseSeconds: rounded(lease_seconds),
      staticLeaseSeconds: static_lease_ms === null ? null : static_lease_ms / 1000,
      canary,
      joinedAt: joined_at.toISOString(),
      inHand: row.mode === 'work-queue' ? in_hand : null,
    })),
    partitions: places.map(
      ({ topic, partition, owner, wanted, epoch, generation, next_offset, end, stored, lag, seconds, beyond }) => ({
        topic,
        partition,
        owner,
        wanted,
        epoch,
        generation,
        nextOffset: next_offset,
        end,
        stored,
        lag,
        lagSeconds: rounded(seconds),
        isBeyondEnd: beyond,
      }),
    ),
  };
  terminal.out(
    options.json === true
      ? `${JSON.stringify(report)}\n`
      : `${deploymentText(row)}${groupText(report.members, report.partitions)}`,
  );
}

async function readGroup(
  client: pg.Client,
  schema: string,
  group: string,
): Promise<{
  readonly row: DeploymentRow;
  readonly members: readonly MemberRow[];
  readonly places: readonly PlaceRow[];
}> {
  const found = await client.query<DeploymentRow>(
    `select ephemeral, follows, hands_over_to, handed_over_at, canary_percent, mode from ${schema}.consumer_group where name = $1`,
    [group],
  );
  const [row] = found.rows;
  if (row === undefined) throw unknownGroup(group);
  const members = await client.query<MemberRow>(
    `select member_id, topics, extract(epoch from expires_at - clock_timestamp())::float8 as lease_seconds,
        static_lease_ms, canary, host, joined_at,
        (select coalesce(sum(to_offset - from_offset), 0)::text from ${schema}.work_range r
          where r.group_name = m.group_name and r.member_id = m.member_id) as in_hand
      from ${schema}.consumer_member m where group_name = $1 and expires_at > clock_timestamp() order by member_id`,
    [group],
  );
  const places = await client.query<PlaceRow>(
    `select * from (${placesSql(schema)}) place where group_name = $1 order by topic collate "C", partition`,
    [group],
  );
  return { row, members: members.rows, places: places.rows };
}

function groupText(
  members: readonly {
    member: string;
    host: string | null;
    topics: readonly string[];
    leaseSeconds: number | null;
    staticLeaseSeconds: number | null;
    canary: boolean;
    inHand: string | null;
  }[],
  places: readonly {
    topic: string;
    partition: number;
    owner: string | null;
    epoch: string;
    generation: number;
    nextOffset: string;
    end: string | null;
    stored: string;
    lag: string | null;
    lagSeconds: number | null;
    isBeyondEnd: boolean;
  }[],
): string {
  const isQueue = members.some(({ inHand }) => inHand !== null); // has no canaries
  const memberTable = formatTable(
    ['MEMBER', 'HOST', 'LEASE SECONDS', 'STATIC SECONDS', isQueue ? 'IN HAND' : 'CANARY', 'TOPICS'],
    members.map(({ member, host, leaseSeconds, staticLeaseSeconds, canary, inHand, topics }) => [
      member,
      host,
      leaseSeconds,
      staticLeaseSeconds,
      isQueue ? big(inHand) : canary ? 'yes' : '',
      topics.join(' '),
    ]),
  );
  const placeTable = formatTable(
    ['TOPIC', 'PARTITION', 'NEXT', 'END', 'LAG', 'SECONDS', 'STORED', 'GENERATION', 'EPOCH', 'OWNER'],
    places.map(({ topic, partition, nextOffset, end, lag, lagSeconds, stored, generation, epoch, owner }) => [
      topic,
      partition,
      BigInt(nextOffset),
      big(end),
      big(lag),
      lagSeconds,
      BigInt(stored),
      generation,
      BigInt(epoch),
      owner,
    ]),
  );
  const beyond = places.filter(({ isBeyondEnd }) => isBeyondEnd).length;
  const unknown = [...new Set(places.flatMap(({ topic, end }) => (end === null ? [topic] : [])))];
  const notes = [
    ...(beyond === 0 ? [] : [beyondText('It is', beyond)]),
    ...(unknown.length === 0 ? [] : [unknownTopicsText('It has places', unknown)]),
  ];
  return [
    members.length === 0 ? 'No member is there.\n' : memberTable,
    places.length === 0 ? 'It has no place in any topic.\n' : placeTable,
    ...notes.map((note) => `${note}\n`),
  ].join('\n');
}

export function big(text: string | null): bigint | null {
  return text === null ? null : BigInt(text);
}

export function rounded(seconds: number | null): number | null {
  return seconds === null ? null : Math.round(seconds * 10) / 10;
}
