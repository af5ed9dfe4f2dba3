import { EXIT_FAILED } from './failure.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Why a process is to end: a signal, or the end of the process that started it and kept a channel to it. */
export type StopReason = (typeof SIGNALS)[number] | 'parent gone';

/** Hears what asks this process to end. */
export interface StopSignals extends Disposable {
  /** Fires with the first request. */
  readonly signal: AbortSignal;
  /** Resolves with the first request. */
  readonly requested: Promise<undefined>;
}

/** How long the work may go on of which the parent has gone. */
const ORPHAN_MS = 10_000;

/**
 * The first request asks the command to end in good order, and calls `onFirst`. A second signal, of whatever kind, ends the
 * process at once. Dispose gives the signals back to Node. `signals` are those that ask for the end.
 */
export function stopSignals(
  onFirst: (reason: StopReason) => void,
  signals: readonly (typeof SIGNALS)[number][] = SIGNALS,
): StopSignals {
  const controller = new AbortController();
  const { promise: requested, resolve } = Promise.withResolvers<undefined>();
  const stop = (reason: StopReason): void => {
    if (controller.signal.aborted) process.exit(EXIT_FAILED);
    controller.abort(reason);
    onFirst(reason);
    resolve(undefined);
  };
  const orphaned = (): void => {
    setTimeout(() => process.exit(EXIT_FAILED), ORPHAN_MS).unref();
    if (!controller.signal.aborted) stop('parent gone');
  };
  for (const signal of signals) process.on(signal, stop);
  process.on('disconnect', orphaned);
  process.channel?.unref(); // to wait for the parent's end is no reason to go on
  return {
    signal: controller.signal,
    requested,
    [Symbol.dispose]: () => {
      for (const signal of signals) process.off(signal, stop);
      process.off('disconnect', orphaned);
      if (process.listenerCount('message') > 0) process.channel?.ref(); // somebody else waits for the parent's messages
    },
  };
}
