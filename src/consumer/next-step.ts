import { backoffMs, type Backoff } from '../base/backoff.ts';
import type { AttemptResult } from './attempt.ts';
import { delayMs, type DelayedRetries } from './delayed-retries.ts';
import { errorText, type ParkNote } from './park-note.ts';
import { verdictOf, type Verdict } from './verdict.ts';

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
  /** Whether it stands in the order of a key. */
  readonly isInLine: boolean;
  /** Whether it can go back to the group: see `WorkRange.giveBack`. */
  readonly canGoBack: boolean;
  /** Whether its dead letters block their keys. */
  readonly isStrict: boolean;
}

/** How often a handler may fail, and the waits between. */
export interface RetryPolicy {
  readonly attempts: number;
  readonly backoff: Backoff;
  readonly delayed: DelayedRetries;
}

/** What to do about a failed attempt. */
export type NextStep =
  /** Try again after a wait. `counts`: it was one of the attempts that the policy allows. */
  | { readonly step: 'retry'; readonly afterMs: number; readonly counts: boolean }
  /** Try each record of the batch alone, so that only the one that cannot be handled is set aside. */
  | { readonly step: 'split' }
  /** Give the records back to the group, for whoever takes them. */
  | { readonly step: 'give-back' }
  /** Park the record until a later attempt. */
  | { readonly step: 'delay'; readonly note: ParkNote }
  /** Set the record aside for good. */
  | { readonly step: 'bury'; readonly note: ParkNote };

/**
 * Decides what becomes of a failed unit. What the database will get over is tried again without limit, and so is setting
 * a record aside, and the probe of an open circuit; a payload that cannot be read is never tried again; a handler has the
 * attempts that the policy allows, first those at once, then the delayed ones.
 */
export function nextStep(
  failed: Extract<AttemptResult, { result: 'failed' }>,
  unit: FailedUnit,
  policy: RetryPolicy,
  random?: number,
): NextStep {
  const blocks = unit.isInLine && unit.isStrict;
  const verdict = verdictOf(failed.error);
  if (verdict !== undefined) return stepAfter(verdict, failed, unit, blocks, random);
  if (failed.claimed !== undefined) {
    const note = { reason: 'HANDLER_FAILED', dead: true, blocks, error: errorText(failed.error), attempts: 1 } as const;
    return { step: 'bury', note };
  }
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
  const error = errorText(failed.error);
  const afterMs = isHopeless ? undefined : delayMs(policy.delayed, attempts - policy.attempts + 1, random);
  if (afterMs !== undefined) {
    const waiting = { reason: 'HANDLER_FAILED', dead: false, blocks: unit.isInLine, delayMs: afterMs } as const;
    return { step: 'delay', note: { ...waiting, error, attempts } };
  }
  const reason = isHopeless ? 'INVALID_PAYLOAD' : 'HANDLER_FAILED';
  return { step: 'bury', note: { reason, dead: true, blocks, error, attempts } };
}

const RELEASED_AT_MOST_ONCE =
  'Its handler has given it back (context.release), and at-most-once delivers nothing again.';

/** What a handler says of its message is done; there is nothing to give back of what was said to be handled before. */
function stepAfter(
  verdict: Verdict,
  failed: Extract<AttemptResult, { result: 'failed' }>,
  unit: FailedUnit,
  blocks: boolean,
  random: number | undefined,
): NextStep {
  if (verdict.verdict === 'reject' || failed.claimed !== undefined) {
    if (unit.size > 1 && failed.claimed === undefined) return { step: 'split' };
    const error = verdict.verdict === 'reject' ? verdict.reason : RELEASED_AT_MOST_ONCE;
    return { step: 'bury', note: { reason: 'REJECTED', dead: true, blocks, error, attempts: unit.failures + 1 } };
  }
  if (verdict.delayMs !== undefined) {
    const note = { dead: false, blocks: unit.isInLine, delayMs: verdict.delayMs, attempts: unit.failures } as const;
    return { step: 'delay', note: { reason: 'RELEASED', error: undefined, ...note } };
  }
  if (unit.canGoBack) return { step: 'give-back' };
  return { step: 'retry', afterMs: backoffMs(unit.stalls + 1, {}, random), counts: false };
}
