import { TailraceError } from '../base/errors.ts';
import { uuidV7 } from '../base/uuid.ts';

/**
 * A client of `pg` 8.21 or later on which a transaction has begun. The client knows of the transaction only once the reply
 * to its BEGIN has come, so await the BEGIN; and do not leave a COMMIT or ROLLBACK un-awaited before this.
 */
export interface PgTransactionClient {
  query(text: string, values: unknown[]): Promise<{ readonly rows: unknown[] }>;
  /** `I` outside a transaction, `T` in one, `E` in one that has failed, `null` before the connection is made. */
  getTransactionStatus(): 'I' | 'T' | 'E' | null;
  /** Set where statements are sent before the replies to earlier ones have come. */
  readonly pipeline?: boolean;
}

/** What Kysely executes. */
export interface KyselyRawQuery {
  readonly sql: string;
  readonly parameters: readonly unknown[];
  readonly query: {
    readonly kind: 'RawNode';
    readonly sqlFragments: readonly string[];
    readonly parameters: readonly [];
  };
  readonly queryId: { readonly queryId: string };
}

/** A `Transaction` or `ControlledTransaction` of Kysely, on a Postgres dialect. */
export interface KyselyTransaction {
  readonly isTransaction: true;
  executeQuery(query: KyselyRawQuery): Promise<{ readonly rows: unknown[] }>;
}

/** The caller's transaction, as its own library hands it out. */
export type TransactionHandle = PgTransactionClient | KyselyTransaction;

/** Runs statements in the caller's transaction. */
export interface TransactionExecutor {
  /** Resolves with the rows. Rejects with what the library rejects with. */
  query(text: string, values: unknown[]): Promise<readonly unknown[]>;
}

/**
 * Recognises whose transaction a handle is, by its methods, and refuses what is no open transaction.
 *
 * @throws TailraceError `NOT_IN_TRANSACTION`, `TRANSACTION_ABORTED`, `UNKNOWN_TRANSACTION_HANDLE`.
 */
export function transactionExecutor(handle: TransactionHandle): TransactionExecutor {
  const found: unknown = handle;
  if (isKysely(found)) return kyselyExecutor(found);
  if (isPgClient(found)) return pgExecutor(found);
  throw refusal(found);
}

function pgExecutor(client: PgTransactionClient): TransactionExecutor {
  const status = client.getTransactionStatus();
  if (status === 'E') throw aborted();
  if (status !== 'T') throw outside(status);
  return {
    query: async (text, values) => {
      const { rows } = await client.query(text, values);
      // A COMMIT or ROLLBACK may have stood before this statement in the client's queue: its status told of none.
      if (client.getTransactionStatus() === 'I' && client.pipeline !== true) throw overtaken();
      return rows;
    },
  };
}

/** The error for a transaction that has failed: Postgres takes nothing more in it. */
export function aborted(cause?: unknown): TailraceError {
  return new TailraceError(
    'TRANSACTION_ABORTED',
    'The transaction has failed in an earlier statement, and Postgres takes nothing more in it. Roll it back, or roll back to a savepoint from before the failure.',
    { cause },
  );
}

function outside(status: 'I' | null): TailraceError {
  const found = status === null ? 'is not connected' : 'is not in a transaction';
  return new TailraceError(
    'NOT_IN_TRANSACTION',
    `The pg client ${found}, so the message would be stored whether or not your change is. Await client.query('BEGIN') on this client first, and COMMIT after.`,
  );
}

function overtaken(): TailraceError {
  return new TailraceError(
    'NOT_IN_TRANSACTION',
    'The transaction of the pg client ended before this statement ran, so what it wrote is stored by itself. Await COMMIT and ROLLBACK before using the client again.',
  );
}

type AnyKysely = Omit<KyselyTransaction, 'isTransaction'> & {
  readonly isTransaction: boolean;
  readonly isCommitted?: unknown;
  readonly isRolledBack?: unknown;
};

function kyselyExecutor(kysely: AnyKysely): TransactionExecutor {
  if (!kysely.isTransaction) {
    throw new TailraceError(
      'NOT_IN_TRANSACTION',
      'This Kysely instance is not a transaction, so the message would be stored whether or not your change is. Pass the transaction that db.transaction().execute(…) hands to its callback.',
    );
  }
  if (kysely.isCommitted === true || kysely.isRolledBack === true) {
    throw new TailraceError(
      'NOT_IN_TRANSACTION',
      `This Kysely transaction has been ${kysely.isCommitted === true ? 'committed' : 'rolled back'}. Publish before its end.`,
    );
  }
  return { query: async (text, values) => (await kysely.executeQuery(rawQuery(text, values))).rows };
}

function rawQuery(sql: string, parameters: readonly unknown[]): KyselyRawQuery {
  return {
    sql,
    parameters,
    query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
    queryId: { queryId: uuidV7() },
  };
}

function refusal(found: unknown): TailraceError {
  if (isPgPool(found)) {
    return new TailraceError(
      'NOT_IN_TRANSACTION',
      "A pg pool has no transaction: each statement may run on another connection. Take a client with await pool.connect(), await client.query('BEGIN'), and pass the client.",
    );
  }
  if (isOldPgClient(found)) {
    return new TailraceError(
      'UNKNOWN_TRANSACTION_HANDLE',
      'This pg client cannot tell whether it is in a transaction: getTransactionStatus() is missing. Upgrade pg to 8.21 or later.',
    );
  }
  return new TailraceError(
    'UNKNOWN_TRANSACTION_HANDLE',
    `Not a transaction that tailrace knows: ${nameOf(found)}. Expected a pg client after BEGIN, or a Kysely transaction.`,
  );
}

function isPgClient(found: unknown): found is PgTransactionClient {
  return hasMethods(found, 'query', 'getTransactionStatus');
}

function isOldPgClient(found: unknown): boolean {
  return hasMethods(found, 'query', 'escapeLiteral', 'escapeIdentifier');
}

function isPgPool(found: unknown): boolean {
  return hasMethods(found, 'query', 'connect') && typeof (found as { totalCount?: unknown }).totalCount === 'number';
}

function isKysely(found: unknown): found is AnyKysely {
  return hasMethods(found, 'executeQuery') && typeof (found as { isTransaction?: unknown }).isTransaction === 'boolean';
}

function hasMethods(found: unknown, ...names: string[]): boolean {
  if (typeof found !== 'object' || found === null) return false;
  return names.every((name) => typeof (found as Record<string, unknown>)[name] === 'function');
}

function nameOf(found: unknown): string {
  if (typeof found !== 'object' || found === null) return found === undefined ? 'undefined' : `a ${typeof found}`;
  const maker: unknown = (found as { constructor?: unknown }).constructor;
  return typeof maker === 'function' && maker !== Object ? `an instance of ${maker.name}` : 'an object';
}
