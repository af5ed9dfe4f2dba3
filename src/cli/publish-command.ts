import { Command, InvalidArgumentError, Option } from 'commander';
import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { assertKey, assertTopic, assertType } from '../message/fields.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withPipelineOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { usageFailure } from './failure.ts';
import { exampleHelp } from './help.ts';
import { assertJson, encodedHeaders } from './message-options.ts';
import type { Terminal } from './terminal.ts';

interface PublishOptions extends DatabaseOptions {
  readonly key?: string;
  readonly type: string;
  readonly kind: string;
  readonly payload?: string;
  readonly header: Readonly<Record<string, string>>;
}

/** Adds `tailrace publish`. */
export function addPublishCommand(program: Command, terminal: Terminal): void {
  withPipelineOptions(program.command('publish'))
    .summary('write messages into the outbox')
    .description(
      'Writes messages into the outbox: one with --payload, or one for each line of standard input that is not empty. All of them commit together, or none does. Prints their ids. The relay brings them into the topic.',
    )
    .argument('<topic>', 'where they go')
    .option('--key <key>', 'messages of one key keep their order (default: no key)')
    .option('--type <type>', 'what the messages are called', 'Message')
    .addOption(
      new Option('--kind <kind>', 'what happened, what is to be done, or data')
        .choices(['event', 'command', 'document'])
        .default('event'),
    )
    .option('--payload <json>', 'the payload (default: lines of standard input)')
    .addOption(
      new Option('--header <name=value>', 'a header; may be given more than once')
        .argParser(addHeader)
        .default({}, 'none'),
    )
    .option('--json', 'print what was written as one JSON document')
    .addHelpText(
      'after',
      exampleHelp(
        `tailrace publish orders --key A-1 --type OrderPlaced --payload '{"orderId": "A-1", "total": 42}'`,
        'cat orders.ndjson | tailrace publish orders --type OrderImported --header source=import',
      ),
    )
    .action((topic: string, options: PublishOptions) => runPublish(topic, options, terminal));
}

function addHeader(text: string, former: Readonly<Record<string, string>>): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Expected a name, an equals sign and a value, such as source=import.');
  return Object.fromEntries([...Object.entries(former), [text.slice(0, at), text.slice(at + 1)]]);
}

async function runPublish(topic: string, options: PublishOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  assertUsable(topic, options);
  const payloads =
    options.payload === undefined ? payloadsOf(terminal.lines()) : [checkedJson(options.payload, '--payload')];
  const statement = publishStatement(topic, options);
  const { schema } = options;
  const ids = await withClient({ url, schema, command: 'publish' }, (client) =>
    publishAll(client, statement, payloads),
  );
  if (ids.length === 0) throw usageFailure('Nothing to publish: standard input was empty. Give --payload, or lines.');
  terminal.out(options.json === true ? `${JSON.stringify({ topic, ids })}\n` : ids.map((id) => `${id}\n`).join(''));
}

function assertUsable(topic: string, { key, type }: PublishOptions): void {
  try {
    assertType(type);
    assertTopic(topic, type);
    assertKey(key ?? null, type);
  } catch (error) {
    if (error instanceof TailraceError) throw usageFailure(error.message);
    throw error;
  }
}

function checkedJson(text: string, where: string): string {
  assertJson(text, where);
  return text;
}

async function* payloadsOf(lines: AsyncIterable<string>): AsyncGenerator<string, void, undefined> {
  let line = 0;
  for await (const text of lines) {
    line += 1;
    if (text.trim() !== '') yield checkedJson(text, `Line ${line} of standard input`);
  }
}

/** A statement that lacks its payloads. */
interface PublishStatement {
  readonly text: string;
  readonly values: readonly (string | null)[];
}

function publishStatement(topic: string, { schema, key, type, header, kind }: PublishOptions): PublishStatement {
  return {
    text: `select ${quoteSchema(schema)}.publish($1, $2, $3, payload::json, $4::json, $5) as id
      from unnest($6::text[]) with ordinality message (payload, nth) order by nth`,
    values: [topic, key ?? null, type, encodedHeaders(header, type), kind],
  };
}

/** How many messages, and about how many characters of them, go in one statement. */
const BATCH_MESSAGES = 500;
const BATCH_CHARACTERS = 8_000_000;

async function publishAll(
  client: pg.Client,
  statement: PublishStatement,
  payloads: Iterable<string> | AsyncIterable<string>,
): Promise<string[]> {
  const ids: string[] = [];
  for await (const batch of batchesOf(payloads)) {
    if (ids.length === 0) await client.query('begin'); // not before there is something, for somebody may be typing
    const { rows } = await client.query<{ id: string }>(statement.text, [...statement.values, batch]);
    ids.push(...rows.map(({ id }) => id));
  }
  if (ids.length > 0) await client.query('commit');
  return ids;
}

async function* batchesOf(
  payloads: Iterable<string> | AsyncIterable<string>,
): AsyncGenerator<string[], void, undefined> {
  let batch: string[] = [];
  let characters = 0;
  for await (const payload of payloads) {
    batch.push(payload);
    characters += payload.length;
    if (batch.length < BATCH_MESSAGES && characters < BATCH_CHARACTERS) continue;
    yield batch;
    batch = [];
    characters = 0;
  }
  if (batch.length > 0) yield batch;
}
