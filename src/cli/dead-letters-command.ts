import { Command, Option } from 'commander';
import type pg from 'pg';
import type { DeadLetterAction } from '../broker/postgres/ask.ts';
import {
  discardDeadLetters,
  editAndRetryDeadLetter,
  retryDeadLetters,
  type DeadLetterFilter,
  type DeadLetterOptions,
  type DeadLetterPlace,
} from '../consumer/dead-letters.ts';
import type { Headers } from '../message/message.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { CommandFailure, notFound, usageFailure } from './failure.ts';
import { asDefaultCommand, defaultCommandHelp, exampleHelp } from './help.ts';
import { assertGroup } from './known-group.ts';
import { assertJson, encodedHeaders } from './message-options.ts';
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
  readonly group?: string;
  readonly type?: string;
  readonly reason?: string;
  readonly dryRun?: true;
  readonly topic?: string;
  readonly all?: true;
  readonly wait: number;
}

interface EditOptions extends DatabaseOptions {
  readonly payload?: string;
  readonly header: readonly string[];
  readonly dryRun?: true;
}

/** Adds `tailrace dead-letters`. */
export function addDeadLettersCommand(program: Command, terminal: Terminal): void {
  const letters = program
    .command('dead-letters')
    .helpCommand(false)
    .summary('list messages that were set aside, show, retry or discard them')
    .description(
      'Lists the messages that groups have set aside, and those that the relay could not route; shows one; lets groups handle them again, or the relay route them; discards them.',
    )
    .addHelpText('after', defaultCommandHelp('tailrace dead-letters list'));
  addList(letters, terminal);
  addShow(letters, terminal);
  addAsk(letters, terminal, 'retry');
  addAsk(letters, terminal, 'discard');
  addEdit(letters, terminal);
}

function addList(letters: Command, terminal: Terminal): void {
  asDefaultCommand(letters, withDatabaseOptions(letters.command('list', { isDefault: true })))
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
    summary: 'let groups handle, or the relay route, messages again',
    description:
      'With --group, lets groups handle dead letters again, at once and with fresh attempts: those of a key in their order, and what lines up behind them after them. Else lets the relay that runs route messages again that it could not, in the order of the outbox, and waits for it. They come behind what their keys have in the topic by then. If no relay runs, the next one does it.',
  },
  discard: {
    summary: 'forget messages of groups, or of the relay',
    description:
      'With --group, removes dead letters of groups for good; what lines up behind them goes on. Else lets the relay that runs forget messages that it could not route, which it logs, and waits for it. If no relay runs, the next one does it. What was discarded of groups is kept in parked_audit.',
  },
} as const;

function addAsk(letters: Command, terminal: Terminal, action: DeadLetterAction): void {
  const name = `tailrace dead-letters ${action}`;
  const command = withDatabaseOptions(letters.command(action));
  if (action === 'retry') command.alias('redrive');
  command
    .summary(ASKS[action].summary)
    .description(ASKS[action].description)
    .argument('[places...]', 'as the list has them: topic/partition@offset of a group, positions of the relay')
    .option('--group <group>', 'those of this group')
    .option('--topic <topic>', 'all of this topic')
    .option('--type <type>', 'all of this type; with --group')
    .option('--reason <reason>', 'all with this reason, such as HANDLER_FAILED; with --group')
    .option('--all', 'all')
    .option('--dry-run', 'say what would be done, and do nothing; with --group')
    .addOption(
      new Option('--wait <seconds>', 'how long to wait for the relay').argParser(wholeNumber(0, 86_400)).default(30),
    )
    .addHelpText(
      'after',
      exampleHelp(
        `${name} 2203 2204`,
        `${name} --group billing orders/3@1041`,
        `${name} --group billing --all --dry-run`,
      ),
    )
    .action((places: readonly string[], options: AskOptions) =>
      options.group === undefined
        ? runAsk(action, places, options, terminal)
        : runOfGroup(action, options.group, places, options, terminal),
    );
}

function addEdit(letters: Command, terminal: Terminal): void {
  withDatabaseOptions(letters.command('edit-and-redrive'))
    .summary('replace the content of a dead letter, and let its group handle it again')
    .description(
      'Replaces the payload or the headers of a dead letter of a group, and lets the group handle it again, at once and with fresh attempts. It keeps its id, its key and its place. The new payload has to be JSON, and is not checked against the schema of its type, which only the application knows. What it was before is kept in parked_audit.',
    )
    .argument('<group>', 'the group')
    .argument('<place>', 'topic, partition and offset, as the list has them')
    .option('--payload <json>', 'the new payload, as JSON')
    .option('--header <name=value...>', 'the new headers, all of them', [])
    .option('--dry-run', 'say what would be done, and do nothing')
    .addHelpText(
      'after',
      exampleHelp(
        `tailrace dead-letters edit-and-redrive billing orders/3@1041 --payload '{"orderId":"A-1","total":10}'`,
      ),
    )
    .action((group: string, place: string, options: EditOptions) => runEdit(group, place, options, terminal));
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
    if (group !== undefined) await assertGroup(client, schema, group);
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
  const { topic, partition, offset } = placeOf(place);
  const url = databaseUrl(options.databaseUrl, terminal);
  const { rows } = await withClient({ url, schema, command: 'dead-letters' }, async (client) => {
    await assertGroup(client, schema, group);
    return client.query<WholeLetterRow>(
      `select ${COLUMNS}, headers, payload::text as payload, payload_bytes as bytes
        from ${quoteSchema(schema)}.parked_message
        where group_name = $1 and topic = $2 and partition = $3 and record_offset = $4 order by generation desc limit 1`,
      [group, topic, partition, offset.toString()],
    );
  });
  const [letter] = rows;
  if (letter === undefined) {
    throw notFound(
      `The group ${group} has set nothing aside at ${place}. tailrace dead-letters list --all --group ${group} lists what it has.`,
    );
  }
  terminal.out(options.json === true ? letterJson(letter) : letterText(letter));
}

/** Reads a place as the list has it. */
function placeOf(place: string): Required<Pick<DeadLetterFilter, 'topic' | 'partition' | 'offset'>> {
  const [, topic, partition, offset] = /^([A-Za-z0-9._-]+)\/(\d{1,9})@(\d{1,18})$/.exec(place) ?? [];
  if (topic === undefined || offset === undefined) {
    throw usageFailure(
      `The place is ${JSON.stringify(place)}. Expected topic/partition@offset, such as orders/3@1041.`,
    );
  }
  return { topic, partition: Number(partition), offset: BigInt(offset) };
}

async function runOfGroup(
  action: DeadLetterAction,
  group: string,
  places: readonly string[],
  { topic, type, reason, all, dryRun, ...options }: AskOptions,
  terminal: Terminal,
): Promise<void> {
  const narrowing = Object.entries({ topic, type, reason }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`],
  );
  assertOneChoice('places, or some of --topic, --type and --reason, or --all', [
    ...(places.length > 0 ? ['places'] : []),
    ...(narrowing.length > 0 ? [narrowing.join(' and ')] : []),
    ...(all === true ? ['--all'] : []),
  ]);
  const narrowed = {
    ...(topic !== undefined && { topic }),
    ...(type !== undefined && { type }),
    ...(reason !== undefined && { reason }),
  };
  const filters: DeadLetterFilter[] =
    places.length > 0 ? places.map((place) => ({ group, ...placeOf(place) })) : [{ group, ...narrowed }];
  const change = action === 'retry' ? retryDeadLetters : discardDeadLetters;
  const done = await actOnLetters(group, options, dryRun, terminal, async (given) => {
    const changed: DeadLetterPlace[] = [];
    for (const filter of filters) changed.push(...(await change(filter, given)));
    return changed;
  });
  if (done.length === 0 && places.length > 0) throw nothingThere(places.length, group);
  tellOfGroup(action, done, { ...options, dryRun }, terminal);
  if (done.length < places.length) throw nothingThere(places.length - done.length, group);
}

/** What is meant is said in one way. */
function assertOneChoice(expected: string, found: readonly string[]): void {
  if (found.length === 1) return;
  const what = found.length === 0 ? 'found none of them' : `found ${found.join(' together with ')}`;
  throw usageFailure(`Expected ${expected}; ${what}. Nothing was done.`);
}

async function runEdit(
  group: string,
  place: string,
  { payload, header, dryRun, ...options }: EditOptions,
  terminal: Terminal,
): Promise<void> {
  if (payload === undefined && header.length === 0) throw usageFailure('Expected --payload, or --header, or both.');
  const filter = { group, ...placeOf(place) };
  if (payload !== undefined) assertJson(payload, '--payload');
  const edit = { ...(payload !== undefined && { payload }), ...(header.length > 0 && { headers: headersOf(header) }) };
  const done = await actOnLetters(group, options, dryRun, terminal, (given) =>
    editAndRetryDeadLetter(filter, edit, given),
  );
  if (done.length === 0) throw nothingThere(1, group);
  tellOfGroup('edit-and-redrive', done, { ...options, dryRun }, terminal);
}

function headersOf(given: readonly string[]): Headers {
  const headers = Object.fromEntries(
    given.map((header) => {
      const at = header.indexOf('=');
      if (at < 1) throw usageFailure(`The header is ${JSON.stringify(header)}. Expected name=value.`);
      return [header.slice(0, at), header.slice(at + 1)];
    }),
  );
  encodedHeaders(headers, 'a dead letter'); // what cannot be one is known before anything is asked
  return headers;
}

function actOnLetters(
  group: string,
  { schema, databaseUrl: given }: DatabaseOptions,
  dryRun: true | undefined,
  terminal: Terminal,
  work: (options: DeadLetterOptions) => Promise<readonly DeadLetterPlace[]>,
): Promise<readonly DeadLetterPlace[]> {
  const url = databaseUrl(given, terminal);
  return withClient({ url, schema, command: 'dead-letters' }, async (client) => {
    await assertGroup(client, schema, group);
    return work({ database: client, schema, dryRun: dryRun === true });
  });
}

function tellOfGroup(
  action: DeadLetterAction | 'edit-and-redrive',
  done: readonly DeadLetterPlace[],
  { schema, json, dryRun }: DatabaseOptions & { readonly dryRun: true | undefined },
  terminal: Terminal,
): void {
  const letters = done.map(({ topic, partition, offset, messageId, ...letter }) => ({
    ...letter,
    place: `${topic}/${partition}@${offset}`,
    id: messageId,
  }));
  if (json === true) {
    terminal.out(`${JSON.stringify({ schema, action, dryRun: dryRun === true, deadLetters: letters })}\n`);
    return;
  }
  if (letters.length > 0) {
    const rows = letters.map(({ group, place, type, key, reason }) => [group, place, type, key, reason]);
    terminal.out(`${formatTable(['GROUP', 'PLACE', 'TYPE', 'KEY', 'REASON'], rows)}\n`);
  }
  const verb = action === 'discard' ? 'discarded' : 'to be handled again';
  terminal.out(dryRun === true ? `${letters.length} would be ${verb}.\n` : `${letters.length} ${verb}.\n`);
}

function nothingThere(count: number, group: string): CommandFailure {
  return notFound(
    `Nothing was done for ${count}: the group ${group} has no dead letters there, or they are being handled. tailrace dead-letters list --all --group ${group} lists what it has.`,
  );
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
    `The position is ${JSON.stringify(position)}. Expected a number as tailrace dead-letters list --relay has it. For a place in a topic, name its --group.`,
  );
}

async function runAsk(
  action: DeadLetterAction,
  positions: readonly string[],
  { schema, topic, type, reason, dryRun, all, wait, ...options }: AskOptions,
  terminal: Terminal,
): Promise<void> {
  if (type !== undefined || reason !== undefined || dryRun === true) {
    throw usageFailure('--type, --reason and --dry-run go with --group.');
  }
  assertOneChoice('positions, or --topic, or --all', [
    ...(positions.length > 0 ? ['positions'] : []),
    ...(topic === undefined ? [] : ['--topic']),
    ...(all === true ? ['--all'] : []),
  ]);
  positions.forEach(assertPosition);
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
