/** Why a record is set aside. */
export type ParkReason =
  /** Its handler has thrown, or left its transaction unusable. */
  | 'HANDLER_FAILED'
  /** Its handler has rejected it. */
  | 'REJECTED'
  /** Its handler has given it back, to be handled later. */
  | 'RELEASED'
  /** Its payload is no JSON. */
  | 'INVALID_PAYLOAD'
  /** Its type has no handler. */
  | 'UNHANDLED_TYPE'
  /** A record of its key is parked before it. */
  | 'KEY_PARKED'
  /** Its time to be delivered has not come. */
  | 'NOT_DUE'
  /** Its time to be handled was over. */
  | 'EXPIRED'
  /** The process ended under each of its attempts. */
  | 'PROCESS_DIED';

/** What stands beside a record that is set aside. */
export interface ParkNote {
  readonly reason: ParkReason;
  /** Whether its attempts are used up; else it waits for its time, its turn, an operator or a handler. */
  readonly dead: boolean;
  /** Whether later records of its key line up behind it. */
  readonly blocks: boolean;
  /** When it is tried again, from now on; absent: not by time. */
  readonly delayMs?: number;
  /** What the last attempt failed with. */
  readonly error: string | undefined;
  readonly attempts: number;
}

/** A record lines up behind the parked ones of its key. */
export const LINED_UP: ParkNote = { reason: 'KEY_PARKED', dead: false, blocks: true, error: undefined, attempts: 0 };

/** A record waits for its `deliverAt`, or is due at once if that has passed meanwhile. */
export const NOT_DUE: ParkNote = {
  reason: 'NOT_DUE',
  dead: false,
  blocks: false,
  delayMs: 0,
  error: undefined,
  attempts: 0,
};

/** A record waits for an operator, once its type has a handler. */
export function unhandled(attempts: number): ParkNote {
  return { reason: 'UNHANDLED_TYPE', dead: false, blocks: false, error: undefined, attempts };
}

/** A record came too late to be handled. */
export function expired(expiresAt: Date | undefined, attempts: number): ParkNote {
  const error = `The message was good until ${expiresAt?.toISOString() ?? 'a time that has passed'}, and was not handled by then.`;
  return { reason: 'EXPIRED', dead: true, blocks: false, error, attempts };
}

/** The process ended under as many attempts as there may be. */
export function processDied(attempts: number, blocks: boolean): ParkNote {
  const error = `The process ended while it handled the message, ${attempts} times that were recorded: the handler seems to end it.`;
  return { reason: 'PROCESS_DIED', dead: true, blocks, error, attempts };
}

/** An error as it is kept for operators: its stack, which begins with its name and message. */
export function errorText(thrown: unknown): string {
  return thrown instanceof Error ? (thrown.stack ?? `${thrown.name}: ${thrown.message}`) : String(thrown);
}
