import { Command, Option } from 'commander';
import type pg from 'pg';
import type { DeadLetterAction } from '../broker/postgres/ask.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { CommandFailure, notFound, usageFailure } from './failure.ts';
import { defaultCommandHelp, exampleHelp } from './help.ts';
import {
  askAndWait,
  type AskOutcome,
  mayReadRelayLetters,
  readRelayLetter,
  readRelayLetters,
  type RelayLetterRow,
  type WholeRelayLetterRow,
} from './relay-dead-letters.ts';
import { formatTable } from './table.ts';
import type { Terminal } from './terminal.ts';
import { wholeNumber } from './whole-number.ts';

interface ListOptions extends DatabaseOptions {
  readonly group?: string;
  readonly relay?: true;
  readonly topic?: string;
  readonly all?: true;
  readonly limit: number;
}

interface ShowOptions extends DatabaseOptions {
  readonly relay?: string;
}

interface AskOptions extends DatabaseOptions {
  readonly topic?: string;
  readonly all?: true;
  readonly wait: number;
}

/** Adds `tailrace dead-letters`. */
export function addDeadLettersCommand(program: Command, terminal: Terminal): void {
  const letters = program
    .command('dead-letters')
    .helpCommand(false)
    .summary('list messages that were set aside, show, retry or discard them')
    .description(
      'Lists the messages that groups have set aside, and those that the relay could not route; shows one; lets the relay route them again, or forget them.',
    )
    .addHelpText('after', defaultCommandHelp('tailrace dead-letters list'));
  addList(letters, terminal);
  addShow(letters, terminal);
  addAsk(letters, terminal, 'retry');
  addAsk(letters, terminal, 'discard');
}

function addList(letters: Command, terminal: Terminal): void {
  withDatabaseOptions(letters.command('list', { isDefault: true }))
    .summary('the newest first')
    .description(
      'Lists dead letters, the newest first: where they are, what they are, and the first line of their error.',
    )
    .option('--group <group>', 'only of this group')
    .option('--relay', 'only what the relay could not route')
    .option('--topic <topic>', 'only of this topic')
    .option('--all', 'also messages set aside for another reason, such as a type without a handler')
    .addOption(new Option('--limit <n>', 'at most this many').argParser(wholeNumber(1, 100_000)).default(50))
    .addHelpText('after', exampleHelp('tailrace dead-letters', 'tailrace dead-letters list --group billing --json'))
    .action((options: ListOptions) => runList(options, terminal));
}

function addShow(letters: Command, terminal: Terminal): void {
  withDatabaseOptions(letters.command('show'))
    .summary('a whole message with its error')
    .description('Shows a message that was set aside: its headers, its payload, and the error of its last attempt.')
    .argument('[group]', 'the group')
    .argument('[place]', 'topic, partition and offset, as the list has them')
    .option('--relay <position>', 'one that the relay could not route, by its position in the outbox')
    .addHelpText(
      'after',
      exampleHelp('tailrace dead-letters show billing orders/3@1041', 'tailrace dead-letters show --relay 2203'),
    )
    .action((group: string | undefined, place: string | undefined, options: ShowOptions) =>
      options.relay === undefined
        ? runShow(group, place, options, terminal)
        : runShowOfRelay(options.relay, options, terminal),
    );
}

const ASKS = {
  retry: {
    summary: 'let the relay route messages again that it could not',
    description:
      'Lets the relay that runs route messages again, in the order of the outbox, and waits for it. They come behind what their keys have in the topic by then. If no relay runs, the next one does it.',
  },
  discard: {
    summary: 'let the relay forget messages that it could not route',
    description:
      'Lets the relay that runs forget messages for good, which it logs, and waits for it. If no relay runs, the next one does it.',
  },
} as const;

function addAsk(letters: Command, terminal: Terminal, action: DeadLetterAction): void {
  const name = `tailrace dead-letters ${action}`;
  withDatabaseOptions(letters.command(action))
    .summary(ASKS[action].summary)
    .description(ASKS[action].description)
    .argument('[positions...]', 'their positions in the outbox, as the list has them')
    .option('--topic <topic>', 'all of this topic')
    .option('--all', 'all')
    .addOption(
      new Option('--wait <seconds>', 'how long to wait for the relay').argParser(wholeNumber(0, 86_400)).default(30),
    )
    .addHelpText('after', exampleHelp(`${name} 2203 2204`, `${name} --topic orders`))
    .action((positions: readonly string[], options: AskOptions) => runAsk(action, positions, options, terminal));
}

interface LetterRow {
  readonly group: string;
  readonly place: string;
  readonly generation: number;
  readonly id: string;
  readonly type: string;
  readonly kind: string;
  readonly key: string | null;
  readonly dead: boolean;
  readonly reason: string;
  readonly attempts: number;
  readonly occurredAt: Date;
  readonly parkedAt: Date;
  readonly error: string | null;
}

const COLUMNS = `group_name as "group", topic || '/' || partition || '@' || record_offset as place, generation,
  message_id as id, type, kind, key, dead, reason, attempts, occurred_at as "occurredAt", parked_at as "parkedAt", error`;

async function runList(options: ListOptions, terminal: Terminal): Promise<void> {
  const { schema, group, relay, topic, limit } = options;
  if (group !== undefined && relay === true) throw usageFailure('--group and --relay do not go together.');
  const url = databaseUrl(options.databaseUrl, terminal);
  const { letters, ofRelay } = await withClient({ url, schema, command: 'dead-letters' }, async (client) => {
    const isUnread = relay !== true && group === undefined && !(await mayReadRelayLetters(client, schema));
    return {
      letters: relay === true ? [] : await readLetters(client, options),
      ofRelay: isUnread ? null : group === undefined ? await readRelayLetters(client, schema, topic, limit) : [],
    };
  });
  if (options.json === true) terminal.out(`${JSON.stringify({ schema, deadLetters: letters, relay: ofRelay })}\n`);
  else terminal.out(lettersText(letters, ofRelay));
}

/** `null` stands for those of the relay where they could not be read. */
function lettersText(letters: readonly LetterRow[], ofRelay: readonly RelayLetterRow[] | null): string {
  const tables = [
    ...(letters.length > 0 ? [listText(letters)] : []),
    ...(ofRelay !== null && ofRelay.length > 0 ? [relayListText(ofRelay)] : []),
  ];
  if (ofRelay !== null) return tables.length === 0 ? 'There are none.\n' : tables.join('\n');
  const own = tables.length === 0 ? ['There are none of groups.\n'] : tables;
  return [...own, 'This role may not read those of the relay.\n'].join('\n');
}

async function readLetters(
  client: pg.Client,
  { schema, group, topic, all, limit }: ListOptions,
): Promise<readonly LetterRow[]> {
  const { rows } = await client.query<LetterRow>(
    `select ${COLUMNS} from ${quoteSchema(schema)}.parked_message
      where (dead or $1) and ($2::text is null or group_name = $2) and ($3::text is null or topic = $3)
      order by parked_at desc, group_name, topic, partition, record_offset limit $4`,
    [all === true, group ?? null, topic ?? null, limit],
  );
  return rows;
}

function relayListText(rows: readonly RelayLetterRow[]): string {
  return formatTable(
    ['SET ASIDE AT', 'POSITION', 'TOPIC', 'TYPE', 'KEY', 'ATTEMPTS', 'ASKED', 'REASON', 'ERROR'],
    rows.map(({ setAsideAt, position, topic, type, key, attempts, asked, reason, error }) => [
      setAsideAt.toISOString(),
      BigInt(position),
      topic,
      type,
      key,
      attempts,
      asked,
      reason,
      error,
    ]),
  );
}

function listText(rows: readonly LetterRow[]): string {
  return formatTable(
    ['PARKED AT', 'GROUP', 'PLACE', 'TYPE', 'KEY', 'ATTEMPTS', 'REASON', 'ERROR'],
    rows.map(({ parkedAt, group, place, type, key, attempts, reason, error }) => [
      parkedAt.toISOString(),
      group,
      place,
      type,
      key,
      attempts,
      reason,
      error?.split('\n')[0] ?? null,
    ]),
  );
}

interface WholeLetterRow extends LetterRow {
  readonly headers: Readonly<Record<string, string>>;
  readonly payload: string | null;
  readonly bytes: Buffer | null;
}

async function runShow(
  group: string | undefined,
  place: string | undefined,
  { schema, ...options }: DatabaseOptions,
  terminal: Terminal,
): Promise<void> {
  if (group === undefined || place === undefined) {
    throw usageFailure('Expected a group and a place, such as billing orders/3@1041, or --relay and a position.');
  }
  const [, topic, partition, offset] = /^([A-Za-z0-9._-]+)\/(\d{1,9})@(\d{1,18})$/.exec(place) ?? [];
  if (topic === undefined) {
    throw usageFailure(
      `The place is ${JSON.stringify(place)}. Expected topic/partition@offset, such as orders/3@1041.`,
    );
  }
  const url = databaseUrl(options.databaseUrl, terminal);
  const { rows } = await withClient({ url, schema, command: 'dead-letters' }, (client) =>
    client.query<WholeLetterRow>(
      `select ${COLUMNS}, headers, payload::text as payload, payload_bytes as bytes
        from ${quoteSchema(schema)}.parked_message
        where group_name = $1 and topic = $2 and partition = $3 and record_offset = $4 order by generation desc limit 1`,
      [group, topic, partition, offset],
    ),
  );
  const [letter] = rows;
  if (letter === undefined) {
    throw notFound(
      `The group ${group} has set nothing aside at ${place}. tailrace dead-letters list --all --group ${group} lists what it has.`,
    );
  }
  terminal.out(options.json === true ? letterJson(letter) : letterText(letter));
}

async function runShowOfRelay(
  position: string,
  { schema, ...options }: ShowOptions,
  terminal: Terminal,
): Promise<void> {
  assertPosition(position);
  const url = databaseUrl(options.databaseUrl, terminal);
  const letter = await withClient({ url, schema, command: 'dead-letters' }, (client) =>
    readRelayLetter(client, schema, position),
  );
  if (letter === undefined) {
    throw notFound(
      `The relay has set nothing aside at position ${position}. tailrace dead-letters list --relay lists what it has.`,
    );
  }
  terminal.out(options.json === true ? letterJson(letter) : letterText(letter));
}

const POSITION = /^\d{1,18}$/;

function assertPosition(position: string): void {
  if (POSITION.test(position)) return;
  throw usageFailure(
    `The position is ${JSON.stringify(position)}. Expected a number as tailrace dead-letters list --relay has it. Dead letters of groups can be neither retried nor discarded yet.`,
  );
}

async function runAsk(
  action: DeadLetterAction,
  positions: readonly string[],
  { schema, topic, all, wait, ...options }: AskOptions,
  terminal: Terminal,
): Promise<void> {
  positions.forEach(assertPosition);
  if ([positions.length > 0, topic !== undefined, all === true].filter(Boolean).length !== 1) {
    throw usageFailure('Expected positions, or --topic, or --all.');
  }
  const url = databaseUrl(options.databaseUrl, terminal);
  const outcome = await withClient({ url, schema, command: 'dead-letters' }, (client) =>
    askAndWait(client, schema, action, { positions, topic }, wait * 1_000),
  );
  if (options.json === true) terminal.out(`${JSON.stringify({ schema, action, ...outcome })}\n`);
  else terminal.out(`${outcome.done.length} ${action === 'retry' ? 'routed again' : 'discarded'}.\n`);
  const problem = problemOf(action, outcome);
  if (problem !== undefined) throw new CommandFailure(problem);
}

/** Why not all that was asked for is done. */
function problemOf(
  action: DeadLetterAction,
  { failed, waiting, refused, isRelayRunning }: AskOutcome,
): string | undefined {
  const [first] = failed;
  const later = isRelayRunning
    ? 'The relay has not done it in time, and does it as soon as it can.'
    : 'No relay runs: the next one does it.';
  const parts = [
    first && `${failed.length} cannot be routed still: ${first.error}`,
    waiting.length > 0 && `${waiting.length} wait for their ${action}. ${later}`,
    refused.length > 0 &&
      `Nothing was asked for ${refused.join(', ')}: these are no dead letters of the relay, or something was asked for them before.`,
  ];
  const text = parts.filter((part) => typeof part === 'string').join(' ');
  return text === '' ? undefined : text;
}

/** A JSON payload stands in it as it was written, so that no number loses digits. */
function letterJson({ payload, bytes, ...letter }: WholeLetterRow | WholeRelayLetterRow): string {
  const content =
    payload === null ? `"payloadBase64":${JSON.stringify(bytes?.toString('base64'))}` : `"payload":${payload.trim()}`;
  return `${JSON.stringify(letter).slice(0, -1)},${content}}\n`;
}

function letterText({ payload, bytes, headers, error, ...letter }: WholeLetterRow | WholeRelayLetterRow): string {
  const lines = Object.entries(letter).map(
    ([name, value]: [string, string | number | boolean | Date | null]) =>
      `${name.padEnd(12)}${value instanceof Date ? value.toISOString() : String(value ?? '-')}\n`,
  );
  const content = payload ?? `(bytes, as base64) ${bytes?.toString('base64') ?? ''}`;
  return `${lines.join('')}${'headers'.padEnd(12)}${JSON.stringify(headers)}\n\n${content}\n\n${error ?? 'No error.'}\n`;
}
