import type { Command } from 'commander';
import type pg from 'pg';
import {
  deleteTopic,
  type DeletedTopic,
  deleteUnreadEntries,
  holdMaintenance,
} from '../broker/postgres/delete-topic.ts';
import { forgetTopic, type ForgottenTopic } from '../consumer/forget-topic.ts';
import { withPool } from './database-client.ts';
import { type DatabaseOptions, withDatabaseOptions } from './database-options.ts';
import { databaseUrl } from './database-url.ts';
import { usageFailure } from './failure.ts';
import { exampleHelp } from './help.ts';
import type { Terminal } from './terminal.ts';

interface DeleteOptions extends DatabaseOptions {
  readonly yes?: true;
  readonly force?: true;
}

/** Adds `tailrace topics delete`. */
export function addTopicsDeleteCommand(topics: Command, terminal: Terminal): void {
  withDatabaseOptions(topics.command('delete'))
    .summary('delete a topic')
    .description(
      'Deletes a topic: its records, what it keeps, the places of groups in it, and what they have of it in their inboxes or set aside. Refused while members read it, unless forced. Relays may run: a message that comes later makes the topic anew, with offsets from 0. Groups in other databases are not seen: delete them there. Needs the rights of the tables’ owner.',
    )
    .argument('<topic>', 'its name')
    .option('--yes', 'yes, delete it: its records are gone for good')
    .option('--force', 'also while members read it: they wait for a new topic of this name')
    .addHelpText('after', exampleHelp('tailrace topics delete clicks --yes'))
    .action((topic: string, options: DeleteOptions) => runDelete(topic, options, terminal));
}

async function runDelete(topic: string, options: DeleteOptions, terminal: Terminal): Promise<void> {
  const { schema, force = false, yes = false } = options;
  if (!yes) {
    throw usageFailure(
      `The records of the topic ${topic} would be gone for good. Look at it with tailrace topics describe ${topic}, and add --yes to delete it.`,
    );
  }
  const url = databaseUrl(options.databaseUrl, terminal);
  const { partitions, records, groups, parked } = await withPool({ url, schema, command: 'topics' }, (pool) =>
    deleteEverywhere(pool, schema, topic, force),
  );
  const report = { schema, topic, partitions, records: records.toString(), groups, parked };
  terminal.out(
    options.json === true
      ? `${JSON.stringify(report)}\n`
      : `The topic ${topic} is gone: ${partitions} partitions with ${records} records, the places of ${groups.length} groups, ${parked} messages that were set aside.\n`,
  );
}

/** One transaction, and then what nobody reads any more. */
async function deleteEverywhere(
  pool: pg.Pool,
  schema: string,
  topic: string,
  force: boolean,
): Promise<DeletedTopic & ForgottenTopic> {
  const client = await pool.connect();
  let failed = true;
  try {
    await client.query('begin isolation level read committed');
    await holdMaintenance(client, schema); // first: who holds a group's lock makes its members wait
    const forgotten = await forgetTopic(client, schema, topic, force);
    const deleted = await deleteTopic(client, schema, topic);
    await client.query('commit');
    await deleteUnreadEntries(client, schema);
    failed = false;
    return { ...forgotten, ...deleted };
  } finally {
    client.release(failed); // a failed client is closed, which undoes its transaction
  }
}
