import type { Origin } from './origin.ts';
import type { Holding } from './sync-plan.ts';

/** A holding that knows how far it is finished. */
export interface ProgressingHolding extends Holding {
  /** Every record below it is handled or parked. */
  readonly nextOffset: bigint;
  readonly origin: Origin;
  /** Where it would like {@link ProgressingHolding.mayReach} to be. */
  readonly wantedReach: bigint;
  /** Whether it has nearly come to what it may begin. */
  readonly isNearReach: boolean;
  /** From now on it may begin records below this offset: the group's table says so. */
  mayReach(offset: bigint): void;
}
