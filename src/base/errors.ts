/**
 * Every error code that tailrace throws. A code is a promise: it keeps its meaning across versions.
 * The table in `docs/errors.md` says for each what happened and what to do.
 */
export type ErrorCode =
  | 'INVALID_OPTION'
  | 'INVALID_CONFIG'
  | 'INVALID_SCHEMA_NAME'
  | 'INVALID_TOPIC'
  | 'INVALID_KEY'
  | 'INVALID_TYPE'
  | 'INVALID_HEADER'
  | 'INVALID_PAYLOAD'
  | 'INVALID_MESSAGE'
  | 'SCHEMA_VIOLATION'
  | 'MESSAGE_TOO_LARGE'
  | 'WRONG_KIND'
  | 'NOT_IN_TRANSACTION'
  | 'TRANSACTION_ABORTED'
  | 'UNKNOWN_TRANSACTION_HANDLE'
  | 'NOT_MIGRATED'
  | 'SCHEMA_TOO_NEW'
  | 'EMBEDDED_POSTGRES_MISSING'
  | 'SERVER_START_FAILED'
  | 'TLS_REFUSED'
  | 'PROTOCOL_VIOLATION'
  | 'REPLICATION_FAILED'
  | 'WRONG_CLUSTER'
  | 'PUBLICATION_MISMATCH'
  | 'SLOT_TAKEN'
  | 'OUTBOX_UNSAFE'
  | 'OUTBOX_PARTITION_MISSING'
  | 'HOT_STANDBY'
  | 'LEASE_LOST'
  | 'CONCURRENT_APPEND'
  | 'PARTITIONS_CHANGED'
  | 'UNKNOWN_TOPIC'
  | 'DANGLING_ENTRY'
  | 'CORRUPT_ENTRY'
  | 'OFFSET_OUT_OF_RANGE'
  | 'UNKNOWN_GROUP'
  | 'GROUP_IN_USE'
  | 'UNSUPPORTED_CAPABILITY'
  | 'APPEND_CONFLICT'
  | 'DUPLICATE_HANDLER'
  | 'ASSIGNMENT_LOST'
  | 'MEMBER_FENCED'
  | 'UNHANDLED_TYPE'
  | 'BUFFER_FULL'
  | 'UNKNOWN_RESULT'
  | 'STOPPED'
  | 'TIMEOUT';

/** What an error carries beside its message. */
export interface ErrorOptions {
  readonly cause?: unknown;
  /** Whether the same call can succeed later without anybody changing anything. @defaultValue false */
  readonly retryable?: boolean;
  /** Facts for a program to read; never payloads or secrets. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/** The one class of errors that tailrace throws on purpose. Its message says what, found, expected, next step. */
export class TailraceError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TailraceError';
    this.code = code;
    this.retryable = options.retryable ?? false;
    this.details = options.details ?? {};
  }
}

/** Whether `error` is a {@link TailraceError}, of the given code if one is named. */
export function isTailraceError(error: unknown, code?: ErrorCode): error is TailraceError {
  return error instanceof TailraceError && (code === undefined || error.code === code);
}

/** The message of anything that was thrown. A host with several addresses refuses with one error for each, and no message. */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.message === '') return thrown.errors.map(messageOf).join('; ');
  return thrown instanceof Error ? thrown.message : String(thrown);
}
