import { describe, expect, test } from 'vitest';
import { Signal } from '../../src/base/signal.ts';

describe('a signal', () => {
  test('ends a wait that is under way', async () => {
    const signal = new Signal();
    const waiting = signal.wait(60_000);
    signal.notify();
    expect(await waiting).toBe(true);
  });

  test('is not lost when nobody waits, and wakes once', async () => {
    const signal = new Signal();
    signal.notify();
    expect(await signal.wait(60_000)).toBe(true);
    expect(await signal.wait(1)).toBe(false);
  });

  test('wakes all that wait', async () => {
    const signal = new Signal();
    const waiting = [signal.wait(60_000), signal.wait(60_000)];
    signal.notify();
    expect(await Promise.all(waiting)).toEqual([true, true]);
    expect(await signal.wait(1)).toBe(false);
  });

  test('an abort ends the wait with false', async () => {
    const abort = new AbortController();
    const waiting = new Signal().wait(60_000, abort.signal);
    abort.abort();
    expect(await waiting).toBe(false);
    expect(await new Signal().wait(60_000, abort.signal)).toBe(false);
  });
});
