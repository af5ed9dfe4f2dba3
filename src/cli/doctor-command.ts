import { Command, Option } from 'commander';
import { quoteSchema } from '../postgres/schema-name.ts';
import { withClient } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { diagnose, type Finding, worst } from './doctor/diagnose.ts';
import { readDoctorFacts, type WorkKind } from './doctor/facts.ts';
import { CommandFailure } from './failure.ts';
import { exampleHelp } from './help.ts';
import type { Terminal } from './terminal.ts';

interface DoctorOptions extends DatabaseOptions {
  readonly for?: WorkKind;
  readonly slot?: string;
}

/** Adds `tailrace doctor`. */
export function addDoctorCommand(program: Command, terminal: Terminal): void {
  withDatabaseOptions(program.command('doctor'))
    .summary('look for what is wrong, and say what mends it')
    .description(
      'Looks at the server, the rights of this role, the schema, publication and slot, and at how far relay and consumers are. Says of each what was found and, where something is wrong, why it matters and what mends it. Changes nothing. The exit code is 1 if something fails; warnings leave it 0.',
    )
    .addOption(
      new Option('--for <work>', 'what the role is meant for: then what it lacks for that fails').choices([
        'app',
        'relay',
        'consumer',
      ] satisfies WorkKind[]),
    )
    .option('--slot <name>', 'the replication slot (default: schema and OID of the database)')
    .addHelpText('after', exampleHelp('tailrace doctor', 'tailrace doctor --for relay --json'))
    .action((options: DoctorOptions) => runDoctor(options, terminal));
}

async function runDoctor({ schema, slot, json, ...options }: DoctorOptions, terminal: Terminal): Promise<void> {
  const url = databaseUrl(options.databaseUrl, terminal);
  quoteSchema(schema);
  const facts = await withClient({ url, schema, command: 'doctor' }, (client) => readDoctorFacts(client, schema, slot));
  const findings = diagnose(facts, options.for);
  const level = worst(findings);
  terminal.out(json === true ? `${JSON.stringify({ schema, level, findings })}\n` : findings.map(lineOf).join(''));
  if (level === 'fail') throw new CommandFailure(''); // all has been said
}

function lineOf({ check, level, what, why, mend }: Finding): string {
  const head = `${level.padEnd(4)}  ${check}: ${what}\n`;
  return why === undefined ? head : `${head}      why:  ${why}\n      mend: ${mend ?? ''}\n`;
}
