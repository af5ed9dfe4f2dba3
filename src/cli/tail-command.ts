import { Command, Option } from 'commander';
import { TailraceError } from '../base/errors.ts';
import { postgresLog } from '../broker/postgres/index.ts';
import type { FetchPosition, Log, PartitionEnds } from '../broker/log.ts';
import { outOfRange } from '../broker/checks.ts';
import type { LogRecord } from '../broker/record.ts';
import { databaseFailure } from './database-client.ts';
import { type DatabaseOptions, withPipelineOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { usageFailure } from './failure.ts';
import { exampleHelp } from './help.ts';
import { recordFormat, TOKEN_HELP } from './record-format.ts';
import { stopSignals } from './stop-signals.ts';
import type { Terminal } from './terminal.ts';
import { wholeNumber } from './whole-number.ts';

interface TailOptions extends DatabaseOptions {
  readonly from: Start;
  readonly key?: string;
  readonly type?: string;
  readonly header?: readonly HeaderFilter[];
  readonly partition?: number;
  readonly count?: number;
  readonly exit?: true;
  readonly format: string;
  readonly json?: true;
}

type Start = 'earliest' | 'latest' | { readonly offset: bigint } | { readonly time: Date };

interface HeaderFilter {
  readonly name: string;
  readonly value: string;
}

/** Adds `tailrace tail`. */
export function addTailCommand(program: Command, terminal: Terminal): void {
  withPipelineOptions(program.command('tail'))
    .summary('print the messages of a topic, and wait for more')
    .description(
      'Prints the messages of a topic, and waits for more until Ctrl-C. It belongs to no group, and moves no cursor. Messages of one partition come in their order.',
    )
    .argument('<topic>', 'what to read')
    .addOption(
      new Option('--from <place>', 'earliest, latest, an offset, or a time such as 2026-01-31T09:00:00Z')
        .argParser(startOf)
        .default('latest' satisfies Start),
    )
    .option('--key <key>', 'only messages of this key')
    .option('--type <type>', 'only messages of this type')
    .addOption(
      new Option(
        '--header <name=value>',
        'only messages with this header; may be given several times, for messages that have them all',
      ).argParser(addHeader),
    )
    .addOption(new Option('--partition <n>', 'only this partition').argParser(wholeNumber(0, 9_999)))
    .addOption(
      new Option('--count <n>', 'end after this many messages').argParser(wholeNumber(1, Number.MAX_SAFE_INTEGER)),
    )
    .option('--exit', 'end at what is the end of the topic now')
    .option('--format <format>', `json, or text with ${TOKEN_HELP}`, '%T %p@%o %k %y %s')
    .option('--json', 'the same as --format json: one JSON document a message')
    .addHelpText(
      'after',
      exampleHelp(
        'tailrace tail orders',
        "tailrace tail orders --from earliest --exit --format '%k\\t%s'",
        'tailrace tail orders --from earliest --header tenant=acme',
        'tailrace tail orders --from 2026-01-31T09:00:00Z --type OrderPlaced --count 10 --format json',
      ),
    )
    .action((topic: string, options: TailOptions) => runTail(topic, options, terminal));
}

function startOf(text: string): Start {
  if (text === 'earliest' || text === 'latest') return text;
  if (/^\d{1,18}$/.test(text)) return { offset: BigInt(text) };
  const time = new Date(text);
  if (/^\d{4}-\d{2}-\d{2}/.test(text) && !Number.isNaN(time.getTime())) return { time: passed(time) };
  throw usageFailure(
    `--from is ${JSON.stringify(text)}. Expected earliest, latest, an offset, or a time such as 2026-01-31T09:00:00Z.`,
  );
}

/** By how much a time may be ahead of this machine's clock, since it may come from another one. */
const CLOCK_DIFFERENCE_MS = 60_000;

function passed(time: Date): Date {
  if (time.getTime() <= Date.now() + CLOCK_DIFFERENCE_MS) return time;
  throw usageFailure(
    `--from is ${time.toISOString()}, which is in the future. Expected a time that has passed, or latest.`,
  );
}

function addHeader(text: string, before: readonly HeaderFilter[] = []): readonly HeaderFilter[] {
  const at = text.indexOf('=');
  if (at > 0) return [...before, { name: text.slice(0, at), value: text.slice(at + 1) }];
  throw usageFailure(`--header is ${JSON.stringify(text)}. Expected a name, = and a value, such as tenant=acme.`);
}

async function runTail(topic: string, options: TailOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  const { schema } = options;
  const format = recordFormat(options.json === true ? 'json' : options.format);
  using stop = stopSignals(() => undefined);
  const signal = AbortSignal.any([stop.signal, terminal.outClosed]);
  try {
    const log = postgresLog({ connectionString: url, schema });
    try {
      await printRecords(recordsOf(log, topic, options, signal), (record) => terminal.out(format(record)), terminal);
    } finally {
      await log.close();
    }
  } catch (error) {
    throw databaseFailure(error, url, schema);
  }
}

async function printRecords(
  batches: AsyncIterable<readonly LogRecord[]>,
  print: (record: LogRecord) => void,
  terminal: Terminal,
): Promise<void> {
  for await (const records of batches) {
    records.forEach(print);
    await terminal.flushed();
  }
}

const WAIT_MS = 30_000;

/** Batches of what is asked for, until its end, or until the signal fires. */
async function* recordsOf(
  log: Log,
  topic: string,
  options: TailOptions,
  signal: AbortSignal,
): AsyncGenerator<readonly LogRecord[], void, undefined> {
  const ends = await partitionsOf(log, topic, options.partition);
  let positions = await startPositions(log, topic, options.from, ends);
  let left = options.count ?? Infinity;
  while (left > 0 && !signal.aborted) {
    if (options.exit === true) positions = positions.filter((place) => isBelowEnd(place, ends));
    if (positions.length === 0) return;
    const records = await log.fetch(positions, { maxWaitMs: WAIT_MS, signal });
    positions = positions.map((position) => after(position, records));
    const wanted = records
      .filter((record) => isWanted(record, options) && (options.exit !== true || isBelowEnd(record, ends)))
      .slice(0, left);
    left -= wanted.length;
    yield wanted;
  }
}

async function partitionsOf(log: Log, topic: string, only: number | undefined): Promise<PartitionEnds[]> {
  const all = await log.ends(topic);
  if (all.length === 0) {
    throw new TailraceError(
      'UNKNOWN_TOPIC',
      `There is no topic ${JSON.stringify(topic)} in this log. The relay creates it with its first message; tailrace topics lists those that exist.`,
    );
  }
  const ends = all.filter(({ partition }) => only === undefined || partition === only);
  if (ends.length > 0) return ends;
  throw usageFailure(`--partition is ${only ?? ''}, and the topic ${topic} has ${all.length}, counted from 0.`);
}

async function startPositions(
  log: Log,
  topic: string,
  from: Start,
  ends: readonly PartitionEnds[],
): Promise<FetchPosition[]> {
  if (typeof from === 'object' && 'time' in from) {
    const positions = await log.offsetsAt(topic, from.time);
    return positions.filter(({ partition }) => ends.some((end) => end.partition === partition));
  }
  const positions = ends.map((end) => ({
    topic,
    partition: end.partition,
    offset: firstOffset(from, end, ends.length === 1),
  }));
  for (const [n, position] of positions.entries()) assertReached(position, ends[n]?.end ?? 0n);
  return positions;
}

/** Reading from beyond the end would otherwise end at once with --exit, as if there were nothing more. */
function assertReached(position: FetchPosition, end: bigint): void {
  if (position.offset <= end) return;
  throw outOfRange(position, `its next record will get the offset ${end}`, 'Expected one up to that.');
}

/** An offset is taken as it is where it can be meant for this partition; with several, it is brought within each one. */
function firstOffset(
  from: Exclude<Start, { readonly time: Date }>,
  { start, end }: PartitionEnds,
  isOnly: boolean,
): bigint {
  if (from === 'earliest') return start;
  if (from === 'latest') return end;
  if (isOnly) return from.offset;
  return from.offset < start ? start : from.offset > end ? end : from.offset;
}

interface Place {
  readonly partition: number;
  readonly offset: bigint;
}

function isBelowEnd({ partition, offset }: Place, ends: readonly PartitionEnds[]): boolean {
  return ends.some((end) => end.partition === partition && offset < end.end);
}

function after(position: FetchPosition, records: readonly LogRecord[]): FetchPosition {
  const last = records.findLast(({ partition }) => partition === position.partition);
  return last === undefined ? position : { ...position, offset: last.offset + 1n };
}

function isWanted(record: LogRecord, { key, type, header = [] }: TailOptions): boolean {
  return (
    (key === undefined || record.key === key) &&
    (type === undefined || record.type === type) &&
    header.every(({ name, value }) => record.headers[name] === value)
  );
}
