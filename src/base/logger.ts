/** Where a service says what it does. pino's loggers fit, and so does anything with these four methods. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

const discard = (): void => undefined;

/** The default of every service: says nothing. */
export const silentLogger: Logger = { debug: discard, info: discard, warn: discard, error: discard };
