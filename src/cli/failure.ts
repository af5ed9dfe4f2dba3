/** Exit codes: what was asked does not hold, or could not be done; and what was asked could not be understood. */
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** What a command failed with, as a JSON document says it. */
export interface Problem {
  /** Of `docs/errors.md`, a SQLSTATE, a code of the system such as `ECONNREFUSED`, `NOT_FOUND`, or `FAILED` for the rest. */
  readonly code: string;
  readonly message: string;
}

/** Ends a command with a message for the user, empty if all has been said, and an exit code. */
export class CommandFailure extends Error implements Problem {
  readonly exitCode: number;
  readonly code: string;

  constructor(message: string, exitCode: number = EXIT_FAILED, code: string = 'FAILED') {
    super(message);
    this.name = 'CommandFailure';
    this.exitCode = exitCode;
    this.code = code;
  }
}

/** What was asked could not be understood. */
export function usageFailure(message: string): CommandFailure {
  return new CommandFailure(message, EXIT_USAGE, 'INVALID_OPTION');
}

/** There is no such thing. */
export function notFound(message: string): CommandFailure {
  return new CommandFailure(message, EXIT_FAILED, 'NOT_FOUND');
}

/** The one JSON document of a command that failed before it had printed another. */
export function failureDocument({ code, message }: Problem): string {
  return `${JSON.stringify({ error: { code, message } })}\n`;
}
