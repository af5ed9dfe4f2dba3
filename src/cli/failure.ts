/** Exit codes: what was asked does not hold, or could not be done; and what was asked could not be understood. */
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** Ends a command with a message for the user, empty if all has been said, and an exit code. */
export class CommandFailure extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT_FAILED) {
    super(message);
    this.name = 'CommandFailure';
    this.exitCode = exitCode;
  }
}

/** What was asked could not be understood. */
export function usageFailure(message: string): CommandFailure {
  return new CommandFailure(message, EXIT_USAGE);
}
