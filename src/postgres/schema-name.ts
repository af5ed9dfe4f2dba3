import { TailraceError } from '../base/errors.ts';

/** The schema that holds tailrace's tables, and the name of its publication. */
export const DEFAULT_SCHEMA = 'tailrace';

const IDENTIFIER = /^[a-z_][a-z0-9_]{0,62}$/;

/**
 * Checks a schema name and returns it quoted, ready to stand in SQL.
 *
 * @throws TailraceError `INVALID_SCHEMA_NAME`: not 1 to 63 lower-case letters, digits and underscores, or reserved.
 */
export function quoteSchema(name: string = DEFAULT_SCHEMA): string {
  if (!IDENTIFIER.test(name) || name.startsWith('pg_')) {
    throw new TailraceError(
      'INVALID_SCHEMA_NAME',
      `Not a usable schema name: ${JSON.stringify(name)}. Expected 1 to 63 lower-case letters, digits and underscores, not starting with a digit or pg_.`,
    );
  }
  return `"${name}"`;
}
