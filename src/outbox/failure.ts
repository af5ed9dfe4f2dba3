import { TailraceError } from '../base/errors.ts';
import { aborted } from '../postgres/executor.ts';

interface PostgresError {
  readonly code: string;
  readonly message: string;
  readonly schema?: string;
  readonly table?: string;
  readonly constraint?: string;
}

/** What to throw for a statement on the outbox that failed: a typed error where there is a next step, else the error itself. */
export function explainFailure(error: unknown, schema: string): unknown {
  if (!isPostgresError(error)) return error;
  if (error.code === '25P02') return aborted(error);
  if (isMissingTable(error, schema) || isMissingFunction(error, schema)) return notMigrated(error, schema);
  if (isMissingPartition(error, schema)) return noPartition(error, schema);
  return error;
}

function isPostgresError(error: unknown): error is PostgresError {
  return error instanceof Error && typeof (error as { code?: unknown }).code === 'string';
}

/** A trigger may miss a table of its own, so the name must be ours. It stands in the text, whatever language that is in. */
function isMissingTable({ code, message }: PostgresError, schema: string): boolean {
  return code === '42P01' && new RegExp(`(?<![\\w.])${schema}\\.outbox(?![\\w.])`).test(message);
}

/** The schema is older than the function that locks a key, or the one that claims a batch. */
function isMissingFunction({ code, message }: PostgresError, schema: string): boolean {
  return code === '42883' && new RegExp(`(?<![\\w.])${schema}\\.(lock_key|claim_batch)\\(`).test(message);
}

/** A check constraint has the same code, and a name. */
function isMissingPartition(error: PostgresError, schema: string): boolean {
  return (
    error.code === '23514' && error.constraint === undefined && error.schema === schema && error.table === 'outbox'
  );
}

function notMigrated(cause: unknown, schema: string): TailraceError {
  const option = schema === 'tailrace' ? '' : ` --schema ${schema}`;
  return new TailraceError(
    'NOT_MIGRATED',
    `The outbox ${schema}.outbox is not in this database, or is older than this version. Run tailrace migrate${option}, or call migrate(pool), and see that this is the database you mean.`,
    { cause },
  );
}

function noPartition(cause: unknown, schema: string): TailraceError {
  return new TailraceError(
    'OUTBOX_PARTITION_MISSING',
    `${schema}.outbox has no partition for the next position. A running relay creates partitions ahead of need; without one, run select ${schema}.ensure_outbox_partitions(). Then repeat the transaction.`,
    { cause, retryable: true },
  );
}
