import { describe, expect, it } from 'vitest';
import {
  afterBegin,
  afterEnd,
  CLOSED,
  mayBegin,
  type Circuit,
  type CircuitOutcome,
} from '../../src/consumer/circuit.ts';

const rules = { failures: 3, wait: { initialMs: 1_000, maxMs: 4_000, factor: 2 } };
const closed = (failures: number): Circuit => ({ state: 'closed', failures });
/** Open since 1,000, with no jitter: half of each wait. */
const open = (untilMs: number, failedProbes: number): Circuit => ({ state: 'open', until: untilMs, failedProbes });
const halfOpen = (failedProbes: number): Circuit => ({ state: 'half-open', failedProbes });

describe('a circuit', () => {
  it.each<[Circuit, CircuitOutcome, isProbe: boolean, after: Circuit]>([
    [CLOSED, 'failed', false, closed(1)],
    [closed(1), 'failed', false, closed(2)],
    [closed(2), 'neither', false, closed(2)],
    [closed(2), 'handled', false, CLOSED],
    [closed(2), 'failed', false, open(1_500, 0)],
    // What began before it opened says nothing.
    [open(1_500, 0), 'failed', false, open(1_500, 0)],
    [open(1_500, 0), 'handled', false, open(1_500, 0)],
    [halfOpen(0), 'failed', false, halfOpen(0)],
    [halfOpen(0), 'handled', false, halfOpen(0)],
    // The probe does.
    [halfOpen(0), 'handled', true, CLOSED],
    [halfOpen(0), 'failed', true, open(2_000, 1)],
    [halfOpen(1), 'failed', true, open(3_000, 2)],
    [halfOpen(9), 'failed', true, open(3_000, 10)],
    [halfOpen(1), 'neither', true, open(1_000, 1)],
  ])('%o, after an attempt that ended %s (probe: %s), is %o', (before, outcome, isProbe, after) => {
    expect(afterEnd(before, { outcome, isProbe }, rules, 1_000, 0)).toEqual(after);
  });

  it.each<[Circuit, boolean]>([
    [CLOSED, true],
    [open(1_001, 0), false],
    [open(1_000, 0), true],
    [halfOpen(0), false],
  ])('%o lets an attempt begin: %s', (circuit, may) => {
    expect(mayBegin(circuit, 1_000)).toBe(may);
  });

  it('is half-open as long as its probe runs', () => {
    expect(afterBegin(open(0, 2))).toEqual(halfOpen(2));
    expect(afterBegin(closed(1))).toEqual(closed(1));
  });
});
