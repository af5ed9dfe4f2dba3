import { TailraceError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { Signal } from '../../base/signal.ts';
import type { Cluster } from '../../base/cluster.ts';
import type { WriterOptions } from '../log.ts';
import { assertSameCluster, decideLease, type LeaseRow, type LeaseTable } from './lease.ts';
import { retrying } from './retry.ts';
import type { Session } from './session.ts';

/** The longest time between two looks at a lease that somebody else holds. */
const LONGEST_INTERVAL_MS = 500;

export interface AcquireContext {
  readonly session: Session;
  readonly table: LeaseTable;
  /** Raised when a holder has given the lease up. */
  readonly freed: Signal;
  readonly quotedSchema: string;
  readonly logger: Logger;
}

/** A lease that was taken. */
export interface HeldLease {
  readonly epoch: string;
  /** Where it was taken: an epoch says nothing elsewhere. */
  readonly cluster: Cluster;
  /** On the monotonic clock, just before the request that took it was sent. */
  readonly takenAtMs: number;
}

/**
 * Waits until the lease is free, and takes it. Goes on through errors that pass by themselves.
 *
 * @throws TailraceError `STOPPED` if the signal fires first, `WRONG_CLUSTER`, `HOT_STANDBY`.
 */
export async function acquireLease(context: AcquireContext, options: WriterOptions): Promise<HeldLease> {
  const wait = new LeaseWait(context, options);
  const { signal } = options;
  const retry = {
    signal,
    logger: context.logger,
    assertMayGoOn: () => assertNotStopped(signal),
    failure: 'the right to append could not be asked for',
    onRetry: (error: unknown) => {
      wait.failed();
      options.onRetry?.(error);
    },
  };
  for (;;) {
    assertNotStopped(signal);
    const held = await retrying(() => wait.step(), retry);
    if (held !== undefined) return held;
  }
}

class LeaseWait {
  readonly #context: AcquireContext;
  readonly #options: WriterOptions;
  #previous: LeaseRow | undefined;
  #waiting = false;

  constructor(context: AcquireContext, options: WriterOptions) {
    this.#context = context;
    this.#options = options;
  }

  /** Whoever has been told of a failure is told when the wait goes on. */
  failed(): void {
    this.#waiting = false;
  }

  /** Looks once; takes the lease or waits. `undefined`: look again. */
  async step(): Promise<HeldLease | undefined> {
    const { session, table, quotedSchema } = this.#context;
    const { holder, leaseMs } = this.#options;
    const view = await table.look(session);
    const here = assertSameCluster(view, quotedSchema);
    const decision = decideLease(view.row, this.#previous, Math.min(leaseMs / 4, LONGEST_INTERVAL_MS));
    this.#previous = view.row;
    const takenAtMs = performance.now();
    switch (decision.action) {
      case 'wait':
        return this.#wait(decision.waitMs, decision.holder);
      case 'create':
        return held(await table.create(session, holder, leaseMs, here), here, takenAtMs);
      case 'take over':
        this.#context.logger.info(
          { from: decision.from.holder, why: decision.why },
          'taking over the right to append from another relay',
        );
        return held(await table.takeOver(session, decision.from, holder, leaseMs), here, takenAtMs);
    }
  }

  async #wait(waitMs: number, holder: string): Promise<undefined> {
    if (!this.#waiting) {
      this.#context.logger.info({ holder }, 'another relay holds the right to append; waiting for it');
      this.#options.onWaiting?.();
    }
    this.#waiting = true;
    await this.#context.freed.wait(waitMs, this.#options.signal);
  }
}

function held(epoch: string | undefined, cluster: Cluster, takenAtMs: number): HeldLease | undefined {
  return epoch === undefined ? undefined : { epoch, cluster, takenAtMs };
}

function assertNotStopped(signal: AbortSignal): void {
  if (!signal.aborted) return;
  throw new TailraceError('STOPPED', 'Stopped while waiting for the right to append.');
}
