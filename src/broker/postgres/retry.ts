import { backoffMs, type Backoff } from '../../base/backoff.ts';
import { isTailraceError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { pause } from '../../base/signal.ts';
import { isTransient, sqlStateOf } from '../../postgres/sqlstate.ts';

export interface RetryOptions {
  /** Ends a wait between two attempts. */
  readonly signal: AbortSignal;
  /** Called before an attempt is repeated; throws to give up. */
  readonly assertMayGoOn: () => void;
  /** Says to the log what failed, as in "the lease could not be asked for". */
  readonly failure: string;
  readonly logger: Logger;
  /** Called with the error before each wait. */
  readonly onRetry?: (error: unknown) => void;
  readonly backoff?: Backoff;
}

/** Our own statement_timeout, or an operator: the statement was rolled back. */
const QUERY_CANCELED = '57014';

/** Whether the writer's own statement may be sent again after this error. */
export function mayRepeat(error: unknown): boolean {
  if (isTailraceError(error)) return error.retryable;
  return isTransient(error) || sqlStateOf(error) === QUERY_CANCELED;
}

/** Repeats `work` for as long as it fails for reasons that pass by themselves. */
export async function retrying<Result>(work: () => Promise<Result>, options: RetryOptions): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!mayRepeat(error)) throw error;
      options.assertMayGoOn();
      const waitMs = backoffMs(attempt, options.backoff);
      options.onRetry?.(error);
      options.logger.warn({ attempt, waitMs, error: messageOf(error) }, `${options.failure}; trying again`);
      await pause(waitMs, options.signal);
    }
  }
}
