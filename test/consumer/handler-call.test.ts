import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ABORT_GRACE_MS, AbandonedHandler, HandlerCall } from '../../src/consumer/handler-call.ts';

const never = new AbortController().signal;

describe('a call of a handler', () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  });

  it('ends as the handler does', async () => {
    await new HandlerCall(100, never).run(() => 'done');
    await expect(new HandlerCall(100, never).run(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
    const throws = (): never => {
      throw new Error('at once');
    };
    await expect(new HandlerCall(100, never).run(throws)).rejects.toThrow('at once');
  });

  it('fires its signal after the limit, and gives up a handler that does not end', async () => {
    const call = new HandlerCall(100, never);
    const { signal } = call;
    const run = call.run(() => new Promise(() => undefined)).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(99);
    expect(signal.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(signal.reason).toMatchObject({ code: 'TIMEOUT' });
    await vi.advanceTimersByTimeAsync(ABORT_GRACE_MS);
    const abandoned = await run;
    expect(abandoned).toBeInstanceOf(AbandonedHandler);
    expect(abandoned).toMatchObject({ reason: { code: 'TIMEOUT', message: expect.stringContaining('100 ms') } });
    expect(call.signal.aborted).toBe(true);
  });

  it('tells a handler that asks for the signal only then', async () => {
    const call = new HandlerCall(100, never);
    const run = call.run(async () => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      expect(call.signal.aborted).toBe(true);
    });
    await vi.advanceTimersByTimeAsync(200);
    await run; // it ended within the grace: what it did counts
  });

  it('is a TIMEOUT with its cause when the handler throws what the signal told it', async () => {
    const call = new HandlerCall(100, never);
    const stopped = (): Promise<never> =>
      new Promise((_resolve, reject) => {
        call.signal.addEventListener('abort', () => {
          reject(new Error('stopped'));
        });
      });
    const run = call.run(stopped).catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(100);
    expect(await run).toMatchObject({ code: 'TIMEOUT', cause: { message: 'stopped' } });
  });

  it.each([100, false] as const)('hears of its parent, with a limit of %s', async (limitMs) => {
    const parent = new AbortController();
    const call = new HandlerCall(limitMs, parent.signal);
    const { signal } = call;
    await call.run(() => {
      parent.abort('lost');
      expect([signal.aborted, signal.reason]).toEqual([true, 'lost']);
    });
    expect(new HandlerCall(100, parent.signal).signal.aborted).toBe(true);
  });
});
