import type { Command } from 'commander';
import { deleteGroup } from '../consumer/delete-group.ts';
import { withPool } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { exampleHelp } from './help.ts';
import type { Terminal } from './terminal.ts';

interface DeleteOptions extends DatabaseOptions {
  readonly force?: true;
}

/** Adds `tailrace groups delete`. */
export function addGroupsDeleteCommand(groups: Command, terminal: Terminal): void {
  withDatabaseOptions(groups.command('delete'))
    .summary('forget a group')
    .description(
      'Forgets a group: its places, what it has handled, what is in its inbox, and what was set aside. A group of the same name begins anew. Refused while members are there, unless forced. Needs the rights of the tables’ owner.',
    )
    .argument('<group>', 'its name')
    .option('--force', 'also while members are there: they begin as a new group')
    .addHelpText('after', exampleHelp('tailrace groups delete billing'))
    .action((group: string, options: DeleteOptions) => runDelete(group, options, terminal));
}

async function runDelete(group: string, options: DeleteOptions, terminal: Terminal): Promise<void> {
  const { schema, force = false } = options;
  const url = databaseUrl(options.databaseUrl, terminal);
  const deleted = await withPool({ url, schema, command: 'groups' }, (database) =>
    deleteGroup({ database, schema, group, force }),
  );
  const { places, processed, parked, stored } = deleted;
  terminal.out(
    options.json === true
      ? `${JSON.stringify({ group, ...deleted })}\n`
      : `The group ${group} is gone: ${places} places, ${processed} handled, ${stored} stored and ${parked} set aside messages.\n`,
  );
}
