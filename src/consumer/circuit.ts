import { backoffMs, type Backoff } from '../base/backoff.ts';

/** When to stop calling handlers, and how long to wait before each probe. */
export interface CircuitRules {
  /** So many attempts in a row, whatever their keys, have to fail by the handler's fault. */
  readonly failures: number;
  readonly wait: Backoff;
}

/** `closed`: handlers are called. `open`: none is, until a time. `half-open`: one is, and its end decides. */
export type Circuit =
  | { readonly state: 'closed'; readonly failures: number }
  | { readonly state: 'open'; readonly until: number; readonly failedProbes: number }
  | { readonly state: 'half-open'; readonly failedProbes: number };

/** How an attempt ended for the circuit: `neither` where no handler was called, or was not to blame. */
export type CircuitOutcome = 'handled' | 'failed' | 'neither';

/** Where a circuit begins. */
export const CLOSED: Circuit = { state: 'closed', failures: 0 };

/** Whether an attempt may begin now. */
export function mayBegin(circuit: Circuit, nowMs: number): boolean {
  switch (circuit.state) {
    case 'closed':
      return true;
    case 'open':
      return nowMs >= circuit.until;
    case 'half-open':
      return false;
  }
}

/** An attempt begins; in an open circuit it is the probe. To be asked only where {@link mayBegin} says so. */
export function afterBegin(circuit: Circuit): Circuit {
  return circuit.state === 'open' ? { state: 'half-open', failedProbes: circuit.failedProbes } : circuit;
}

/**
 * An attempt has ended. What began before the circuit opened changes nothing while it is open: only the probe does.
 * `random` is a number in [0, 1).
 */
export function afterEnd(
  circuit: Circuit,
  ended: { readonly outcome: CircuitOutcome; readonly isProbe: boolean },
  rules: CircuitRules,
  nowMs: number,
  random?: number,
): Circuit {
  const open = (failedProbes: number): Circuit => ({
    state: 'open',
    until: nowMs + backoffMs(failedProbes + 1, rules.wait, random),
    failedProbes,
  });
  switch (circuit.state) {
    case 'closed': {
      if (ended.outcome === 'neither') return circuit;
      if (ended.outcome === 'handled') return CLOSED;
      const failures = circuit.failures + 1;
      return failures >= rules.failures ? open(0) : { state: 'closed', failures };
    }
    case 'open':
      return circuit;
    case 'half-open':
      if (!ended.isProbe) return circuit;
      if (ended.outcome === 'handled') return CLOSED;
      if (ended.outcome === 'failed') return open(circuit.failedProbes + 1);
      return { state: 'open', until: nowMs, failedProbes: circuit.failedProbes };
  }
}
