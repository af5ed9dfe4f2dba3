/** What the outbox says of a message. */
export interface InOutbox {
  readonly position: string;
  readonly topic: string;
  readonly key: string | null;
  readonly type: string;
  readonly kind: string;
  readonly transaction: string;
  readonly occurredAt: Date;
  /** `null` unless the server keeps the times of commits. */
  readonly committedAt: Date | null;
}

/** Where a message stands in the log. */
export interface InLog {
  readonly topic: string;
  readonly partition: number;
  readonly offset: string;
  readonly appendedAt: Date;
}

/** What the relay says of a message that it could not route. */
export interface SetAsideByRelay {
  readonly reason: string;
  readonly attempts: number;
  readonly error: string;
  readonly setAsideAt: Date;
}

/** How a group stands to a message, as the tables have it. */
export interface GroupFacts {
  readonly group: string;
  readonly isHandled: boolean;
  /** `null` unless the server keeps the times of commits. */
  readonly handledAt: Date | null;
  readonly parked: {
    readonly isDead: boolean;
    readonly reason: string;
    readonly attempts: number;
    readonly error: string | null;
    readonly parkedAt: Date;
  } | null;
  /** The group's place in the message's partition; `null` if it has none, or if the message is not in the log. */
  readonly nextOffset: string | null;
}

/** Everything that a database knows of a message. */
export interface MessageFacts {
  readonly traceId: string | null;
  readonly outbox: InOutbox | null;
  readonly log: InLog | null;
  readonly relay: SetAsideByRelay | null;
  /** The relay has passed it, and it is neither in the log nor a dead letter: an operator had it forgotten. */
  readonly isDiscarded: boolean;
  /** The relay has passed it, and it was not found in the log of its topic, which keeps the last record of each key. */
  readonly isSuperseded: boolean;
  readonly groups: readonly GroupFacts[];
}

/**
 * `handled`: by a handler. `dead`: set aside, its attempts are used up. `parked`: set aside for another reason.
 * `passed-over`: the group has gone on without it, since no handler has its type or the group began behind it. `waiting`:
 * the group has not done with it.
 */
export type GroupState = 'handled' | 'dead' | 'parked' | 'passed-over' | 'waiting';

/** What has become of a message in a group. */
export interface GroupWay {
  readonly group: string;
  readonly state: GroupState;
  /** Since when it is in that state, where that is known. */
  readonly at: Date | null;
  /** Failed attempts, of a message that was set aside. */
  readonly attempts: number | null;
  readonly reason: string | null;
  /** The first line of the last error. */
  readonly error: string | null;
  /** Of a message that waits: how many before it in its partition are not done with. `null` if that cannot be known. */
  readonly before: string | null;
}

/** Decides what has become of a message in a group. */
export function wayInGroup(
  { group, isHandled, handledAt, parked, nextOffset }: GroupFacts,
  log: InLog | null,
): GroupWay {
  const nothing = { group, at: null, attempts: null, reason: null, error: null, before: null };
  if (parked !== null) {
    const { isDead, reason, attempts, error, parkedAt } = parked;
    const firstLine = error?.split('\n')[0] ?? null;
    return { ...nothing, state: isDead ? 'dead' : 'parked', at: parkedAt, attempts, reason, error: firstLine };
  }
  if (isHandled) return { ...nothing, state: 'handled', at: handledAt };
  if (nextOffset === null || log === null) return { ...nothing, state: 'waiting' };
  const before = BigInt(log.offset) - BigInt(nextOffset);
  if (before < 0n) return { ...nothing, state: 'passed-over' };
  return { ...nothing, state: 'waiting', before: String(before) };
}
