import { isTailraceError } from '../base/errors.ts';

/** The SQLSTATE of an error that the server sent, as `pg` reports it; `undefined` for any other. */
export function sqlStateOf(error: unknown): string | undefined {
  const code = codeOf(error);
  const fromServer = error instanceof Error && 'severity' in error;
  return fromServer && code !== undefined && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** The code of a tailrace error, the SQLSTATE of the server's, or the system's own, such as `ECONNREFUSED`. */
export function errorCodeOf(error: unknown): string | undefined {
  if (isTailraceError(error)) return error.code;
  const [first] = error instanceof AggregateError ? (error.errors as unknown[]) : [];
  return codeOf(first ?? error);
}

/**
 * Whether an error can pass by itself, so that the same call may succeed later: connections lost or refused, the server
 * stopping or starting, serialization failures and deadlocks, locks not obtained, resources exhausted. A cancelled query
 * is not among them: somebody, or a timeout that somebody set, wanted its end.
 *
 * @see https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function isTransient(error: unknown): boolean {
  if (isTailraceError(error)) return error.retryable;
  const state = sqlStateOf(error);
  return state === undefined ? isConnectionError(error) : TRANSIENT_STATE.test(state);
}

/**
 * Whether the session is gone, so that a new connection is needed. A statement that was under way may or may not have
 * been committed.
 */
export function isConnectionLost(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === undefined ? isConnectionError(error) : SESSION_ENDED_STATE.test(state);
}

const TRANSIENT_STATE = /^(08...|40001|40P01|53...|55P03|57P0.)$/;
const SESSION_ENDED_STATE = /^(08...|57P0.|25P03)$/;

const NETWORK_CODES: ReadonlySet<string> = new Set([
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EAI_AGAIN',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ENETDOWN',
  'ENETRESET',
  'ENETUNREACH',
  'ENOTCONN',
  'ENOENT', // no Unix socket: the server is not up
  'ENOTFOUND',
  'EPIPE',
  'ERR_STREAM_DESTROYED',
  'ERR_STREAM_WRITE_AFTER_END',
  'ETIMEDOUT',
]);

/** What `pg` and `pg-pool` say of connections that ended, were closed, or did not answer in time. They set no code. */
const PG_MESSAGES =
  /^(Connection terminated|Client has encountered a connection error|Client was closed|Query read timeout|timeout expired|timeout exceeded when trying to connect)/;

function isConnectionError(error: unknown): boolean {
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.every(isConnectionError);
  const code = codeOf(error);
  if (code !== undefined) return NETWORK_CODES.has(code);
  return error instanceof Error && PG_MESSAGES.test(error.message);
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
