import type { Command } from 'commander';
import { DEFAULT_SCHEMA } from '../postgres/schema-name.ts';
import { databaseUrlOption } from './database-url.ts';

/** What every command has that asks the database something. */
export interface DatabaseOptions {
  readonly databaseUrl?: string;
  readonly schema: string;
  readonly json?: true;
}

/** Adds the options of {@link DatabaseOptions}. */
export function withDatabaseOptions(command: Command): Command {
  return command
    .addOption(databaseUrlOption())
    .option('--schema <name>', 'the schema that tailrace migrate filled', DEFAULT_SCHEMA)
    .option('--json', 'print one JSON document');
}
