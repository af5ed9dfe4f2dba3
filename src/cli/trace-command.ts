import { type Command, Option } from 'commander';
import type pg from 'pg';
import { quoteSchema } from '../postgres/schema-name.ts';
import { sqlStateOf } from '../postgres/sqlstate.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { CommandFailure, notFound, usageFailure } from './failure.ts';
import { exampleHelp } from './help.ts';
import type { Terminal } from './terminal.ts';
import { type GroupWay, type MessageFacts, wayInGroup } from './trace/message-way.ts';
import { type Lookup, readMessageFacts } from './trace/read-message-facts.ts';
import { wholeNumber } from './whole-number.ts';

interface TraceOptions extends DatabaseOptions {
  readonly timeout: number;
}

/** Adds `tailrace trace`. */
export function addTraceCommand(program: Command, terminal: Terminal): void {
  withDatabaseOptions(program.command('trace'))
    .summary('tell the way of one message')
    .description(
      'Tells the way of one message: when it was put into the outbox, where it stands in the log, and what has become of it in each group; with the id of its trace, if it has one.',
    )
    .argument('<message-id>', 'a UUID, as publish returns it and logs have it')
    .addOption(
      new Option('--timeout <seconds>', 'give the search up after this long: the outbox has no index on ids')
        .argParser(wholeNumber(1, 86_400))
        .default(60),
    )
    .addHelpText('after', exampleHelp('tailrace trace 019a0c6e-5d3a-7b1c-9f42-3d1e8c5a7b90'))
    .action((id: string, options: TraceOptions) => runTrace(id, options, terminal));
}

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

async function runTrace(id: string, { schema, timeout, ...options }: TraceOptions, terminal: Terminal): Promise<void> {
  if (!UUID.test(id)) {
    throw usageFailure(`The message id is ${JSON.stringify(id)}. Expected a UUID.`);
  }
  const url = databaseUrl(options.databaseUrl, terminal);
  const messageId = id.toLowerCase();
  const facts = await withClient({ url, schema, command: 'trace' }, (client) =>
    readWithin(client, timeout, { messageId, schema: quoteSchema(schema) }),
  );
  if (facts === undefined) {
    throw notFound(
      `There is no message ${messageId} in this database: it is not in the outbox, and no group has handled it. Was its transaction rolled back, or is its outbox in another database?`,
    );
  }
  const { groups, ...rest } = facts;
  const ways = groups.map((group) => wayInGroup(group, facts.log));
  terminal.out(
    options.json === true
      ? `${JSON.stringify({ messageId, ...rest, groups: ways })}\n`
      : storyText(messageId, facts, ways),
  );
}

const CANCELLED = '57014';

async function readWithin(client: pg.Client, seconds: number, lookup: Lookup): Promise<MessageFacts | undefined> {
  try {
    await client.query(`set statement_timeout = ${seconds * 1_000}`);
    return await readMessageFacts(client, lookup);
  } catch (error) {
    if (sqlStateOf(error) !== CANCELLED) throw error;
    throw new CommandFailure(
      `The search for ${lookup.messageId} took longer than ${seconds} seconds and was given up. Let it take longer with --timeout.`,
    );
  }
}

const DISCARDED = 'the relay has passed it: it is neither in the log nor a dead letter of the relay; it was discarded';

const SUPERSEDED =
  'the relay has passed it: its topic keeps the last message of each key, and this one was not found among them';

/** A head, and a line for everything that is known to have happened. */
function storyText(
  messageId: string,
  { traceId, outbox, log, relay, isDiscarded, isSuperseded }: MessageFacts,
  ways: readonly GroupWay[],
): string {
  const head = [
    `message   ${messageId}`,
    ...(traceId === null ? [] : [`trace     ${traceId}`]),
    ...(outbox === null ? [] : [`type      ${outbox.type} (${outbox.kind})`, `topic     ${outbox.topic}`]),
    ...(outbox === null || outbox.key === null ? [] : [`key       ${outbox.key}`]),
    '',
  ];
  const lines = [
    ...(outbox === null
      ? [line(null, 'is not in the outbox of this database')]
      : [
          line(outbox.occurredAt, 'happened'),
          line(outbox.committedAt, `is in the outbox: position ${outbox.position}, transaction ${outbox.transaction}`),
        ]),
    ...(relay === null ? [] : [line(relay.setAsideAt, `was set aside by the relay (${relay.reason}): ${relay.error}`)]),
    ...(log === null
      ? outbox === null || relay !== null
        ? []
        : [line(null, isDiscarded ? DISCARDED : isSuperseded ? SUPERSEDED : 'is not in the log yet')]
      : [line(log.appendedAt, `is in the log: ${log.topic}/${log.partition}@${log.offset}`)]),
    ...ways.map((way) => line(way.at, `${way.group}: ${wayText(way)}`)),
    ...(ways.length === 0 ? [line(null, 'no group in this database reads its topic')] : []),
  ];
  return [...head, ...lines].map((text) => `${text}\n`).join('');
}

function line(at: Date | null, text: string): string {
  return `${(at?.toISOString() ?? '').padEnd(24)}  ${text}`;
}

function wayText({ state, attempts, reason, error, before }: GroupWay): string {
  switch (state) {
    case 'handled':
      return 'handled';
    case 'dead':
      return `a dead letter after ${attempts ?? 0} attempts (${reason ?? ''}): ${error ?? ''}`;
    case 'parked':
      return `set aside (${reason ?? ''})`;
    case 'passed-over':
      return 'passed over: no handler for its type, or the group began behind it';
    case 'waiting':
      return before === null ? 'not reached yet' : `not done yet, with ${before} before it in its partition`;
  }
}
