import { Signal } from '../base/signal.ts';
import { AssignedPartition } from './assigned-partition.ts';
import type { TakenPartition } from './group-tables.ts';
import { ABORT_GRACE_MS } from './handler-call.ts';
import type { ConsumerSettings } from './options.ts';
import type { Origin } from './origin.ts';
import type { WorkQueue } from './work-queue.ts';
import { WorkRange } from './work-range.ts';

/** Who is told of what happens to them. */
export interface Informed {
  readonly membership: { wake(): void };
  readonly transactions: { cutOff(partition: AssignedPartition): void };
  readonly dispatcher: { drop(partition: AssignedPartition): bigint[] };
  readonly fetcher: { freed(partition: AssignedPartition): void; resume(): void; reassigned(): void };
  readonly inbox: { taken(): void; freed(partition: AssignedPartition): void; reassigned(): void };
  readonly feeder: { taken(): void };
  readonly work: WorkQueue | undefined;
  readonly ends: { changed(): void };
}

/** The partitions that a member has, and what happens to them: taken, revoked and drained, released, lost. */
export class Holdings {
  readonly #settings: ConsumerSettings;
  readonly #partitions = new Set<AssignedPartition>();
  readonly #drainTimers = new Map<AssignedPartition, NodeJS.Timeout>();
  /** Notified when something that ran has ended. */
  readonly progress = new Signal();
  #informed: Informed | undefined;

  constructor(settings: ConsumerSettings) {
    this.#settings = settings;
  }

  /** Who is to be told; `undefined`: nobody any more. */
  attach(informed: Informed | undefined): void {
    this.#informed = informed;
  }

  get partitions(): readonly AssignedPartition[] {
    return [...this.#partitions];
  }

  /** Those that something may be begun of. */
  get owned(): AssignedPartition[] {
    return [...this.#partitions].filter(({ state }) => state === 'owned');
  }

  /** All that this member has: also the ranges of a work queue. */
  get all(): AssignedPartition[] {
    return [...this.#partitions, ...(this.#informed?.work?.ranges ?? [])];
  }

  /** The group has given it a partition. */
  take(taken: TakenPartition, origin: Origin): void {
    this.#partitions.add(new AssignedPartition(taken, origin, this.#settings.concurrency));
    this.#informed?.feeder.taken();
    this.#informed?.inbox.taken();
  }

  /** There may be more to read, or other partitions to read from. */
  readAnew(): void {
    this.#informed?.fetcher.reassigned();
    this.#informed?.inbox.reassigned();
    this.#informed?.ends.changed();
  }

  /** It is to give a partition, or a range, up: what runs of it may end. */
  revoke(partition: AssignedPartition): void {
    this.wind(partition);
    if (partition.drained) this.#informed?.membership.wake();
    else if (partition.revoking) this.#setDrainTimer(partition);
    if (partition instanceof WorkRange && partition.givenBack.length > 0) this.#informed?.membership.wake();
  }

  /** Begins nothing more of a partition. */
  wind(partition: AssignedPartition): void {
    if (partition.state !== 'owned') return;
    partition.revoke();
    const dropped = this.#informed?.dispatcher.drop(partition) ?? [];
    if (partition instanceof WorkRange) partition.giveBackRest(dropped);
  }

  /** A handler that does not end is not to keep the partition from its next owner for ever. */
  #setDrainTimer(partition: AssignedPartition): void {
    const { drainTimeoutMs } = this.#settings;
    const hurry = (): void => {
      partition.hurry();
      this.#drainTimers.set(
        partition,
        setTimeout(() => this.lose(partition), ABORT_GRACE_MS),
      );
    };
    this.#drainTimers.set(partition, setTimeout(hurry, drainTimeoutMs));
  }

  /** Something that ran of it has ended. */
  progressed(partition: AssignedPartition): void {
    this.progress.notify();
    const wants = partition instanceof WorkRange ? this.#informed?.work?.wantsSync(partition) : partition.drained;
    if (wants === true) this.#informed?.membership.wake();
    if (partition instanceof WorkRange) this.#informed?.fetcher.resume();
    else if (!partition.drained) {
      this.#informed?.fetcher.freed(partition);
      this.#informed?.inbox.freed(partition);
    }
  }

  /** It is another's, or has to be given up at once. */
  lose(partition: AssignedPartition, isMoved = false): void {
    if (partition instanceof WorkRange) this.#informed?.work?.lose(partition, isMoved);
    else if (this.#partitions.has(partition)) this.forgetLost(partition, isMoved);
  }

  /** The same, of what its keeper has let go of. */
  forgetLost(partition: AssignedPartition, isMoved: boolean): void {
    this.forget(partition, 'lost');
    const { group, memberId, logger } = this.#settings;
    const { topic, epoch } = partition;
    const fields = {
      group,
      memberId,
      code: 'ASSIGNMENT_LOST',
      topic,
      partition: partition.partition,
      epoch: `${epoch}`,
    };
    if (isMoved) {
      logger.info(
        { ...fields, reason: 'moved' },
        "The group's place in a partition was moved: what was under way is undone",
      );
    } else {
      logger.warn(fields, 'A partition was lost: what was under way in it is undone');
    }
    this.#informed?.membership.wake();
  }

  /** What runs of it is cut off. */
  forget(partition: AssignedPartition, end: 'released' | 'lost'): void {
    clearTimeout(this.#drainTimers.get(partition));
    this.#drainTimers.delete(partition);
    this.#partitions.delete(partition);
    partition.end(end);
    this.#informed?.dispatcher.drop(partition);
    this.#informed?.transactions.cutOff(partition);
  }

  /** Nothing is this member's any more. */
  forgetAll(): void {
    this.#informed?.work?.loseAll();
    for (const partition of this.#partitions) this.forget(partition, 'lost');
  }
}
