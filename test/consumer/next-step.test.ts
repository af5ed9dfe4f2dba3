import { describe, expect, it } from 'vitest';
import { nextStep, type FailedUnit } from '../../src/consumer/next-step.ts';

const policy = { attempts: 3, backoff: { initialMs: 100, maxMs: 1_000, factor: 2 }, delayed: { delaysMs: [] } };
const unit = (changes: Partial<FailedUnit> = {}): FailedUnit => ({
  size: 1,
  isParking: false,
  isProbe: false,
  failures: 0,
  stalls: 0,
  canGoBack: false,
  isInLine: true,
  isStrict: false,
  ...changes,
});
const failed = (by: 'handler' | 'database' | 'payload') =>
  ({ result: 'failed', by, error: new Error('the handler said no') }) as const;

describe('nextStep', () => {
  it('tries a handler again after waits that grow, as often as it is allowed', () => {
    expect(nextStep(failed('handler'), unit(), policy, 0)).toEqual({ step: 'retry', afterMs: 50, counts: true });
    expect(nextStep(failed('handler'), unit({ failures: 1 }), policy, 0)).toMatchObject({ afterMs: 100, counts: true });
    expect(nextStep(failed('handler'), unit({ failures: 2 }), policy)).toMatchObject({
      step: 'bury',
      note: {
        reason: 'HANDLER_FAILED',
        dead: true,
        attempts: 3,
        error: expect.stringContaining('the handler said no'),
      },
    });
  });

  it('parks it between the attempts that follow, in the order of the list', () => {
    const delayed = { ...policy, delayed: { delaysMs: [7, 9] } };
    const after = (failures: number, changes: Partial<FailedUnit> = {}) =>
      nextStep(failed('handler'), unit({ failures, ...changes }), delayed, 0);
    expect(after(1)).toMatchObject({ step: 'retry' });
    expect(after(2)).toMatchObject({ step: 'delay', note: { delayMs: 7, attempts: 3, dead: false, blocks: true } });
    expect(after(3)).toMatchObject({ step: 'delay', note: { delayMs: 9, attempts: 4 } });
    expect(after(4)).toMatchObject({ step: 'bury', note: { attempts: 5, dead: true, blocks: false } });
    expect(after(2, { isInLine: false })).toMatchObject({ note: { delayMs: 7, blocks: false } });
    expect(after(2, { size: 2 })).toEqual({ step: 'split' });
    expect(nextStep(failed('payload'), unit(), delayed)).toMatchObject({ step: 'bury' });
  });

  it('lets a dead letter block its key where that is wanted, and it has one', () => {
    const last = (changes: Partial<FailedUnit>) =>
      nextStep(failed('handler'), unit({ failures: 2, ...changes }), policy);
    expect(last({ isStrict: true })).toMatchObject({ step: 'bury', note: { dead: true, blocks: true } });
    expect(last({ isStrict: true, isInLine: false })).toMatchObject({ note: { dead: true, blocks: false } });
  });

  it('takes what the database will get over for no attempt, however often it comes', () => {
    const late = unit({ failures: 2, stalls: 1_000 });
    expect(nextStep(failed('database'), late, policy)).toMatchObject({ step: 'retry', counts: false });
  });

  it('makes no second attempt at what was said to be handled before', () => {
    const claimed = { ...failed('handler'), claimed: new Set(['an id']) };
    const note = { dead: true, attempts: 1 };
    expect(nextStep(claimed, unit({ size: 5 }), policy)).toMatchObject({ step: 'bury', note });
    expect(nextStep(claimed, unit({ isProbe: true }), policy)).toMatchObject({ step: 'bury', note });
  });

  it('takes a failed probe for no attempt, and leaves the wait to the circuit', () => {
    const probe = unit({ failures: 2, stalls: 9, isProbe: true });
    expect(nextStep(failed('handler'), probe, policy)).toEqual({ step: 'retry', afterMs: 0, counts: false });
    expect(nextStep(failed('payload'), probe, policy)).toMatchObject({ step: 'bury' });
  });

  it('never gives up setting a record aside', () => {
    const late = unit({ failures: 2, isParking: true });
    expect(nextStep(failed('handler'), late, policy)).toMatchObject({ step: 'retry', counts: false });
  });

  it('splits a batch whose attempts are used up', () => {
    expect(nextStep(failed('handler'), unit({ size: 5, failures: 2 }), policy)).toEqual({ step: 'split' });
    expect(nextStep(failed('handler'), unit({ size: 5, failures: 1 }), policy)).toMatchObject({ step: 'retry' });
  });

  it('tries an unreadable payload once', () => {
    expect(nextStep(failed('payload'), unit({ size: 2 }), policy)).toEqual({ step: 'split' });
    expect(nextStep(failed('payload'), unit(), policy)).toMatchObject({
      step: 'bury',
      note: { reason: 'INVALID_PAYLOAD', dead: true, attempts: 1 },
    });
  });
});
