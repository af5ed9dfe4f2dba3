import { Option } from 'commander';
import pg from 'pg';
import { messageOf } from '../base/errors.ts';
import { clientUrl } from '../postgres/tls.ts';
import { usageFailure } from './failure.ts';
import type { Terminal } from './terminal.ts';

/** Where the URL comes from if the option is not given, in this order. */
const VARIABLES = ['TAILRACE_DATABASE_URL', 'DATABASE_URL'] as const;

const EXAMPLE = 'postgresql://user@localhost:5432/shop';

/** The option `--database-url`, as every command that works on the user's database has it. */
export function databaseUrlOption(): Option {
  return new Option('--database-url <url>', `the database with the outbox (default: $${VARIABLES.join(', $')})`);
}

/** Whether the option or the environment names a database. */
export function isDatabaseNamed(option: string | undefined, { env }: Pick<Terminal, 'env'>): boolean {
  return option !== undefined || VARIABLES.some((name) => (env[name] ?? '') !== '');
}

/**
 * The URL that a command is to use: the option's, or the environment's.
 *
 * @throws CommandFailure there is none, or it is not a URL of a Postgres database.
 */
export function databaseUrl(option: string | undefined, { env }: Pick<Terminal, 'env'>): string {
  const variable = VARIABLES.find((name) => (env[name] ?? '') !== '');
  const url = option ?? (variable === undefined ? undefined : env[variable]);
  if (url === undefined) {
    throw usageFailure(
      `No database is named: --database-url, $${VARIABLES.join(' and $')} are all empty. Give one, such as ${EXAMPLE}.`,
    );
  }
  return checkedUrl(url, option === undefined ? (variable ?? '') : '--database-url');
}

/**
 * The URL, if a client can be made of it. `from` says where it was found.
 *
 * @throws CommandFailure it cannot. The message shows no part of the URL that could be a password.
 */
export function checkedUrl(url: string, from: string): string {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(url)?.[1];
  if (scheme !== 'postgres' && scheme !== 'postgresql') {
    const found = scheme === undefined ? 'something that is no URL' : `a URL that begins with ${scheme}://`;
    throw usageFailure(`${from} holds ${found}. Expected one such as ${EXAMPLE}.`);
  }
  try {
    addressOf(url);
    return url;
  } catch (error) {
    throw usageFailure(
      `${from} cannot be read: ${messageOf(error)}. Expected a URL such as ${EXAMPLE}; special characters in a password are written in percent form, @ as %40.`,
    );
  }
}

/** What may be shown of a database's URL. */
export interface DatabaseAddress {
  readonly server: string;
  readonly database: string;
  readonly user: string;
}

/** Reads a URL as the client does that will connect with it. */
export function addressOf(url: string): DatabaseAddress {
  const { host, port, database, user } = new pg.Client({ connectionString: clientUrl(url) });
  return { server: host.startsWith('/') ? host : `${host}:${port}`, database: database ?? '', user: user ?? '' };
}

/** Takes passwords out of the URLs in a text. */
export function withoutPasswords(text: string): string {
  return text.replace(/([a-z][a-z0-9+.-]*:\/\/[^\s:@/]*):[^\s@]*@/gi, '$1:***@');
}
