import { isTailraceError, messageOf } from '../base/errors.ts';
import { withTlsExplained } from '../postgres/tls.ts';
import { errorCodeOf, sqlStateOf } from '../postgres/sqlstate.ts';
import { addressOf, withoutPasswords } from './database-url.ts';
import { CommandFailure, EXIT_FAILED, EXIT_USAGE, type Problem } from './failure.ts';

/** The end of a command for anything that was thrown. A {@link CommandFailure} stays what it is. */
export function failureOf(thrown: unknown, url?: string): CommandFailure {
  if (thrown instanceof CommandFailure) return thrown;
  const error = withTlsExplained(thrown);
  return new CommandFailure(explainError(error, url), isBadOption(error) ? EXIT_USAGE : EXIT_FAILED, codeOf(error));
}

/** What was thrown as a program reads it. The message is {@link explainError}'s. */
export function problemOf(thrown: unknown, url?: string): Problem {
  const error = withTlsExplained(thrown);
  return { code: codeOf(error), message: explainError(error, url) };
}

function codeOf(error: unknown): string {
  return errorCodeOf(error) ?? 'FAILED';
}

function isBadOption(error: unknown): boolean {
  return (
    isTailraceError(error, 'INVALID_OPTION') ||
    isTailraceError(error, 'INVALID_CONFIG') ||
    isTailraceError(error, 'INVALID_SCHEMA_NAME')
  );
}

/**
 * One line for the user on anything that was thrown: what, found, expected, next step. Never a stack trace, never a
 * password. `url` is the database that the command worked on, if it did.
 */
export function explainError(error: unknown, url?: string): string {
  const text = isTailraceError(error) || url === undefined ? ownWords(error) : explainDatabaseError(error, url);
  return withoutPasswords(text.replace(/\s*\n\s*/g, ' '));
}

function ownWords(error: unknown): string {
  return messageOf(error) || (error instanceof Error ? error.name : 'unknown error');
}

function explainDatabaseError(error: unknown, url: string): string {
  const { server, database, user } = addressOf(url);
  const state = sqlStateOf(error);
  const said = ownWords(rootOf(error));
  switch (state) {
    case '28P01':
    case '28000':
      return `Postgres at ${server} does not let the user ${user} in: ${said}. Check the user and the password in the URL, and pg_hba.conf.`;
    case '3D000':
      return `There is no database ${database} on ${server}. Create it, or correct the name in the URL.`;
    case '42501':
      return `The user ${user} lacks a right in the database ${database} on ${server}: ${said}. Grant it, or connect as the owner.`;
    case undefined:
      return explainConnectionError(error, said, server);
    default:
      return `Postgres at ${server} reported: ${said} (SQLSTATE ${state}).`;
  }
}

const CONNECTION_PROBLEMS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing accepts connections there. Start the server, or correct host and port in the URL.',
  ENOTFOUND: 'no such host. Correct it in the URL.',
  EAI_AGAIN: 'the name of the host could not be resolved. Check it, and the network.',
  ENOENT: 'no such socket. Start the server, or correct the folder in the URL.',
  ETIMEDOUT: 'no answer. Check the address, and what lies between here and there.',
  EHOSTUNREACH: 'the host cannot be reached. Check the address, and the network.',
  ENETUNREACH: 'the network cannot be reached. Check the address, and the network.',
  ECONNRESET: 'the connection was cut off. Is it a Postgres server, and does it speak TLS as the URL asks?',
};

function explainConnectionError(error: unknown, said: string, server: string): string {
  const root = rootOf(error);
  const code = root instanceof Error && 'code' in root ? String(root.code) : '';
  const problem = CONNECTION_PROBLEMS[code];
  return problem === undefined ? said : `Cannot reach Postgres at ${server}: ${problem}`;
}

/** A host with several addresses fails once for each. */
function rootOf(error: unknown): unknown {
  return error instanceof AggregateError && error.errors.length > 0 ? error.errors[0] : error;
}
