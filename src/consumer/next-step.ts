import { backoffMs, type Backoff } from '../base/backoff.ts';
import type { AttemptResult } from './attempt.ts';
import { errorText, type ParkNote } from './parked-messages.ts';

/** A unit of which an attempt has failed. */
export interface FailedUnit {
  readonly size: number;
  /** Whether it was to be parked, so that no handler is to blame. */
  readonly isParking: boolean;
  /** Whether it was tried to see if handlers work again. */
  readonly isProbe: boolean;
  /** Attempts that failed before, by the handler's fault. */
  readonly failures: number;
  /** Attempts that failed before, by nobody's fault, since one that was the handler's. */
  readonly stalls: number;
}

/** How often a handler may fail, and the waits between. */
export interface RetryPolicy {
  readonly attempts: number;
  readonly backoff: Backoff;
}

/** What to do about a failed attempt. */
export type NextStep =
  /** Try again after a wait. `counts`: it was one of the attempts that the policy allows. */
  | { readonly step: 'retry'; readonly afterMs: number; readonly counts: boolean }
  /** Try each record of the batch alone, so that only the one that cannot be handled is set aside. */
  | { readonly step: 'split' }
  /** Set the record aside. */
  | { readonly step: 'bury'; readonly note: ParkNote };

/**
 * Decides what becomes of a failed unit. What the database will get over is tried again without limit, and so is setting
 * a record aside, and the probe of an open circuit; a payload that cannot be read is never tried again; a handler has the attempts that the policy allows.
 */
export function nextStep(
  failed: Extract<AttemptResult, { result: 'failed' }>,
  unit: FailedUnit,
  policy: RetryPolicy,
  random?: number,
): NextStep {
  if (unit.isProbe && failed.by === 'handler') return { step: 'retry', afterMs: 0, counts: false }; // the circuit waits
  if (failed.by === 'database' || unit.isParking) {
    return { step: 'retry', afterMs: backoffMs(unit.stalls + 1, {}, random), counts: false };
  }
  const attempts = unit.failures + 1;
  const isHopeless = failed.by === 'payload';
  if (!isHopeless && attempts < policy.attempts) {
    return { step: 'retry', afterMs: backoffMs(attempts, policy.backoff, random), counts: true };
  }
  if (unit.size > 1) return { step: 'split' };
  const reason = isHopeless ? 'INVALID_PAYLOAD' : 'HANDLER_FAILED';
  return { step: 'bury', note: { reason, dead: true, error: errorText(failed.error), attempts } };
}
