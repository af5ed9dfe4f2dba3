import { Command, Option } from 'commander';
import { quoteSchema } from '../postgres/schema-name.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { notFound, usageFailure } from './failure.ts';
import { exampleHelp } from './help.ts';
import { formatTable } from './table.ts';
import type { Terminal } from './terminal.ts';
import { wholeNumber } from './whole-number.ts';

interface ListOptions extends DatabaseOptions {
  readonly group?: string;
  readonly topic?: string;
  readonly all?: true;
  readonly limit: number;
}

/** Adds `tailrace dead-letters`. */
export function addDeadLettersCommand(program: Command, terminal: Terminal): void {
  const letters = program
    .command('dead-letters')
    .helpCommand(false)
    .summary('list messages that were set aside, or show one')
    .description('Lists the messages that groups have set aside, or shows one.');
  withDatabaseOptions(letters.command('list', { isDefault: true }))
    .summary('the newest first')
    .description(
      'Lists dead letters, the newest first: where they are, what they are, and the first line of their error.',
    )
    .option('--group <group>', 'only of this group')
    .option('--topic <topic>', 'only of this topic')
    .option('--all', 'also messages set aside for another reason, such as a type without a handler')
    .addOption(new Option('--limit <n>', 'at most this many').argParser(wholeNumber(1, 100_000)).default(50))
    .addHelpText('after', exampleHelp('tailrace dead-letters', 'tailrace dead-letters list --group billing --json'))
    .action((options: ListOptions) => runList(options, terminal));
  withDatabaseOptions(letters.command('show'))
    .summary('a whole message with its error')
    .description('Shows a message that was set aside: its headers, its payload, and the error of its last attempt.')
    .argument('<group>', 'the group')
    .argument('<place>', 'topic, partition and offset, as the list has them')
    .addHelpText('after', exampleHelp('tailrace dead-letters show billing orders/3@1041'))
    .action((group: string, place: string, options: DatabaseOptions) => runShow(group, place, options, terminal));
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

async function runList(
  { schema, group, topic, all, limit, ...options }: ListOptions,
  terminal: Terminal,
): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  const { rows } = await withClient({ url, schema, command: 'dead-letters' }, (client) =>
    client.query<LetterRow>(
      `select ${COLUMNS} from ${quoteSchema(schema)}.parked_message
        where (dead or $1) and ($2::text is null or group_name = $2) and ($3::text is null or topic = $3)
        order by parked_at desc, group_name, topic, partition, record_offset limit $4`,
      [all === true, group ?? null, topic ?? null, limit],
    ),
  );
  if (options.json === true) terminal.out(`${JSON.stringify({ schema, deadLetters: rows })}\n`);
  else if (rows.length === 0) terminal.out('There are none.\n');
  else terminal.out(listText(rows));
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
  group: string,
  place: string,
  { schema, ...options }: DatabaseOptions,
  terminal: Terminal,
): Promise<void> {
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

/** A JSON payload stands in it as it was written, so that no number loses digits. */
function letterJson({ payload, bytes, ...letter }: WholeLetterRow): string {
  const content =
    payload === null ? `"payloadBase64":${JSON.stringify(bytes?.toString('base64'))}` : `"payload":${payload.trim()}`;
  return `${JSON.stringify(letter).slice(0, -1)},${content}}\n`;
}

function letterText({ payload, bytes, headers, error, ...letter }: WholeLetterRow): string {
  const lines = Object.entries(letter).map(
    ([name, value]: [string, string | number | boolean | Date | null]) =>
      `${name.padEnd(12)}${value instanceof Date ? value.toISOString() : String(value ?? '-')}\n`,
  );
  const content = payload ?? `(bytes, as base64) ${bytes?.toString('base64') ?? ''}`;
  return `${lines.join('')}${'headers'.padEnd(12)}${JSON.stringify(headers)}\n\n${content}\n\n${error ?? 'No error.'}\n`;
}
