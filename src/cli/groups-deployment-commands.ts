import { type Command, Option } from 'commander';
import { postgresLog } from '../broker/postgres/index.ts';
import { setCanaryShare } from '../consumer/canary-share.ts';
import { cloneGroup } from '../consumer/clone-group.ts';
import { abortCutover, cutOver, type CutoverGroups, type CutoverProgress } from '../consumer/cutover.ts';
import { withPool } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { exampleHelp } from './help.ts';
import { stopSignals } from './stop-signals.ts';
import type { Terminal } from './terminal.ts';
import { wholeNumber } from './whole-number.ts';

interface CutoverCommandOptions extends DatabaseOptions {
  readonly timeout: number;
  readonly withoutMembers?: true;
  readonly abort?: true;
}

interface CanaryOptions extends DatabaseOptions {
  readonly percent: number;
}

/** Adds `tailrace groups clone`, `cutover` and `canary`. */
export function addGroupsDeploymentCommands(groups: Command, terminal: Terminal): void {
  withDatabaseOptions(groups.command('clone'))
    .summary('make a group that begins where another one is')
    .description(
      'Makes a group that begins where another one is, to run beside it: it gets all that comes after the stored places of the other, and what is set aside below them. The other does not notice.',
    )
    .argument('<old>', 'the group that is there')
    .argument('<new>', 'the group to make')
    .addHelpText('after', exampleHelp('tailrace groups clone billing billing-shadow'))
    .action((from: string, to: string, options: DatabaseOptions) => runClone(from, to, options, terminal));
  withDatabaseOptions(groups.command('cutover'))
    .summary('let a new group take over exactly where another one stops')
    .description(
      'Makes the new group, waits until its members are there, lets the members of the old one finish what runs, and hands places, handled and set aside messages over in one transaction: nothing is lost, nothing is handled by both, keys keep their order. Begin it before the members of the new group are started. Ctrl-C, or the end of the time, undoes it. Cut over the other way round to go back.',
    )
    .argument('<old>', 'the group that hands over')
    .argument('<new>', 'the group that takes over')
    .addOption(
      new Option('--timeout <seconds>', 'undo it after this long').argParser(wholeNumber(1, 86_400)).default(300),
    )
    .option('--without-members', 'do not wait for members of the new group')
    .option('--abort', 'undo a cutover whose command has died')
    .addHelpText(
      'after',
      exampleHelp('tailrace groups cutover billing billing-v2', 'tailrace groups cutover billing billing-v2 --abort'),
    )
    .action((from: string, to: string, options: CutoverCommandOptions) => runCutover(from, to, options, terminal));
  withDatabaseOptions(groups.command('canary'))
    .summary('give canaries a share of the partitions')
    .description(
      'Gives members of a group that are canaries (createConsumer with canary: true) a share of its partitions, at least one; with 0 they get none. Where only one kind of members is there, it has all.',
    )
    .argument('<group>', 'its name')
    .addOption(new Option('--percent <n>', 'the share, 0 to 100').argParser(wholeNumber(0, 100)).makeOptionMandatory())
    .addHelpText(
      'after',
      exampleHelp('tailrace groups canary billing --percent 10', 'tailrace groups canary billing --percent 0'),
    )
    .action((group: string, options: CanaryOptions) => runCanary(group, options, terminal));
}

async function runClone(from: string, to: string, options: DatabaseOptions, terminal: Terminal): Promise<void> {
  const { schema } = options;
  const url = databaseUrl(options.databaseUrl, terminal);
  const cloned = await withPool({ url, schema, command: 'groups' }, (database) =>
    cloneGroup({ database, schema, from, to }),
  );
  terminal.out(
    options.json === true
      ? `${JSON.stringify({ from, to, ...cloned })}\n`
      : `The group ${to} begins where ${from} is: ${cloned.places} places, ${cloned.parked} set aside messages.\n`,
  );
}

async function runCutover(from: string, to: string, options: CutoverCommandOptions, terminal: Terminal): Promise<void> {
  const { schema } = options;
  const url = databaseUrl(options.databaseUrl, terminal);
  await withPool({ url, schema, command: 'groups' }, (database) => {
    const groups = { database, schema, from, to };
    return options.abort === true ? runAbort(groups, options, terminal) : runHandOver(groups, url, options, terminal);
  });
}

async function runAbort(groups: CutoverGroups, options: CutoverCommandOptions, terminal: Terminal): Promise<void> {
  const { from, to } = groups;
  const undone = await abortCutover(groups);
  const text = undone ? `The cutover is undone: ${from} goes on.` : `No cutover from ${from} to ${to} was under way.`;
  terminal.out(options.json === true ? `${JSON.stringify({ from, to, undone })}\n` : `${text}\n`);
}

async function runHandOver(
  groups: CutoverGroups,
  url: string,
  { schema, timeout, withoutMembers, json }: CutoverCommandOptions,
  terminal: Terminal,
): Promise<void> {
  using stop = stopSignals(() => terminal.err('Undoing the cutover.\n'));
  const { from, to } = groups;
  const log = postgresLog({ connectionString: url, schema });
  const result = await cutOver({
    ...{ ...groups, log, timeoutMs: timeout * 1_000, awaitMembers: withoutMembers !== true, signal: stop.signal },
    onProgress: (progress) => terminal.err(`${progressText(groups, progress)}\n`),
  }).finally(() => log.close());
  const { places, handled, parked } = result;
  terminal.out(
    json === true
      ? `${JSON.stringify({ from, to, ...result })}\n`
      : `${to} has taken over from ${from}: ${places} places, ${handled} messages handled beyond them, ${parked} set aside.\n`,
  );
}

function progressText({ from, to }: CutoverGroups, progress: CutoverProgress): string {
  if (progress.waitsFor === 'members') {
    return `Waiting for members of ${to} that handle ${progress.topics.join(', ')}: start its processes now. ${from} goes on.`;
  }
  return `Waiting for ${progress.members.join(', ')} of ${from} to finish what runs of ${progress.partitions} partitions.`;
}

async function runCanary(group: string, options: CanaryOptions, terminal: Terminal): Promise<void> {
  const { schema, percent } = options;
  const url = databaseUrl(options.databaseUrl, terminal);
  const share = await withPool({ url, schema, command: 'groups' }, (database) =>
    setCanaryShare({ database, schema, group, percent }),
  );
  const { canaries, others, partitions, ofCanaries } = share;
  terminal.out(
    options.json === true
      ? `${JSON.stringify({ group, ...share })}\n`
      : `Canaries of ${group} get ${ofCanaries} of ${partitions} partitions (${canaries} are there, and ${others} other members).\n`,
  );
}
