import type pg from 'pg';
import { backoffMs } from '../base/backoff.ts';
import { messageOf, TailraceError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { pause } from '../base/signal.ts';
import { isConnectionLost, isTransient, sqlStateOf } from '../postgres/sqlstate.ts';
import { explainFailure } from './failure.ts';
import type { Statement } from './insert.ts';

/** Where a producer gets its client from: a `pg.Pool`, or whatever hands out clients as it does. */
export interface ProducerDatabase {
  connect(): Promise<pg.PoolClient>;
  /** A pool tells here of idle clients whose connection was lost: without a listener that ends the process. */
  on?(event: 'error', listener: (error: Error) => void): unknown;
  removeListener?(event: 'error', listener: (error: Error) => void): unknown;
}

export interface InsertOptions {
  readonly database: ProducerDatabase;
  readonly schema: string;
  readonly timeoutMs: number;
  readonly logger: Logger;
}

/** How an attempt failed. `unknown`: its commit may have happened, or may yet. */
interface Failure {
  readonly error: unknown;
  readonly isUnknown: boolean;
}

const RETRY = { initialMs: 20, maxMs: 2_000 };
/** So many attempts fit into the time, though the server never answers. */
const ATTEMPTS_AT_LEAST = 3;

/**
 * Runs a statement that adds a batch once, until the server says that it did: see `insertBatchStatement`. Goes on through errors that pass, for
 * `timeoutMs`.
 *
 * @throws TailraceError `UNKNOWN_RESULT` if an attempt was not answered, and none after it succeeded; else what the last one failed
 * with, and nothing was added.
 */
export async function insertOnce(options: InsertOptions, statement: Statement): Promise<void> {
  const { timeoutMs, schema, logger } = options;
  const deadlineMs = performance.now() + timeoutMs;
  const attemptMs = Math.ceil(timeoutMs / ATTEMPTS_AT_LEAST);
  for (let [attempt, isUnknown] = [1, false]; ; attempt++) {
    const failure = await tryInsert(options, statement, attemptMs);
    if (failure === undefined) return;
    const error = explainFailure(failure.error, schema);
    isUnknown ||= failure.isUnknown;
    const waitMs = backoffMs(attempt, RETRY);
    if (!isTransient(error) || performance.now() + waitMs > deadlineMs) {
      throw isUnknown ? unknownResult(error) : error;
    }
    logger.warn(
      { attempt, error: messageOf(error), waitMs },
      'messages could not be added to the outbox; trying again',
    );
    await pause(waitMs);
  }
}

async function tryInsert(
  { database }: InsertOptions,
  { text, values }: Statement,
  attemptMs: number,
): Promise<Failure | undefined> {
  let client: pg.PoolClient;
  try {
    client = await connected(database, attemptMs);
  } catch (error) {
    return { error, isUnknown: false };
  }
  client.on('error', ignore); // the statement reports it; nobody listening would end the process
  let failure: Failure | undefined;
  try {
    const query: pg.QueryConfig & { readonly query_timeout: number } = { text, values, query_timeout: attemptMs };
    await client.query(query);
  } catch (error) {
    failure = { error, isUnknown: sqlStateOf(error) === undefined || isConnectionLost(error) };
  }
  client.off('error', ignore);
  client.release(failure?.isUnknown === true);
  return failure;
}

async function connected(database: ProducerDatabase, timeoutMs: number): Promise<pg.PoolClient> {
  const connecting = database.connect();
  const ended = new AbortController();
  const late = pause(timeoutMs, ended.signal);
  try {
    const client = await Promise.race([connecting, late]);
    if (client !== undefined) return client;
  } finally {
    ended.abort();
  }
  connecting.then((client) => client.release(), ignore);
  throw new TailraceError(
    'TIMEOUT',
    `The pool gave no client within ${String(timeoutMs)} ms. Raise its max, or look who keeps its clients.`,
    { retryable: true },
  );
}

function unknownResult(cause: unknown): TailraceError {
  return new TailraceError(
    'UNKNOWN_RESULT',
    'The connection was lost while messages were added to the outbox, and the server could not be asked again in time: they may be stored or not. Look for their ids (tailrace trace ID) before you send them again.',
    { cause },
  );
}

function ignore(): void {
  return undefined;
}
