import { TailraceError, messageOf } from '../base/errors.ts';
import { pause } from '../base/signal.ts';
import { isTransient } from '../postgres/sqlstate.ts';
import type { Relay } from '../relay/relay.ts';
import type { GroupProgress, Groups } from './groups.ts';
import type { LoggedMessages, PipelineTables } from './pipeline-tables.ts';

/** What a drain looks at. */
export interface DrainParts {
  readonly tables: PipelineTables;
  readonly groups: Groups;
  readonly relay: Pick<Relay, 'status'>;
  /** Fires when the pipeline stops. */
  readonly stopping: AbortSignal;
}

/** What is still to be done before a drain ends. */
export interface Remainder {
  /** Messages that are committed and not in the log. */
  readonly notInLog: number;
  /** Groups that have not handled everything, or were never there. */
  readonly groups: readonly GroupProgress[];
}

const SHORTEST_WAIT_MS = 2;
const LONGEST_WAIT_MS = 50;

/** Follows the messages that were committed when it was made, until everybody has handled them. */
export class Drain {
  readonly #parts: DrainParts;
  readonly #snapshot: string;
  #logged: LoggedMessages | undefined;

  private constructor(parts: DrainParts, snapshot: string) {
    this.#parts = parts;
    this.#snapshot = snapshot;
  }

  /** From now on: what is committed later is not waited for. */
  static async begin(parts: DrainParts): Promise<Drain> {
    assertNotStopped(parts.stopping);
    return new Drain(parts, await parts.tables.snapshot());
  }

  /**
   * Looks until nothing remains, or until `deadline` on the monotonic clock; returns what remains then.
   *
   * @throws what the relay has halted with; TailraceError `STOPPED`.
   */
  async run(deadline: number): Promise<Remainder> {
    for (let waitMs = SHORTEST_WAIT_MS; ; waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS)) {
      const remainder = await this.#look();
      if (isNothing(remainder) || performance.now() >= deadline) return remainder;
      this.#assertGoingOn(remainder);
      await pause(waitMs, this.#parts.stopping);
    }
  }

  async #look(): Promise<Remainder> {
    const { tables, groups } = this.#parts;
    if (this.#logged?.missing !== 0) this.#logged = await tables.logged(this.#snapshot);
    const { missing, ends } = this.#logged;
    const progress = await groups.progress(ends);
    return { notInLog: missing, groups: progress.filter(({ behind, isKnown }) => behind > 0 || !isKnown) };
  }

  #assertGoingOn({ notInLog }: Remainder): void {
    assertNotStopped(this.#parts.stopping);
    const { state, error } = this.#parts.relay.status();
    if (state === 'halted' && notInLog > 0) throw error;
  }
}

function assertNotStopped(stopping: AbortSignal): void {
  if (stopping.aborted) throw new TailraceError('STOPPED', 'The test pipeline was stopped. Start another one.');
}

function isNothing({ notInLog, groups }: Remainder): boolean {
  return notInLog === 0 && groups.length === 0;
}

/** Repeats what fails because a connection was cut, as tests do on purpose, until `deadline` or until `stopping` fires. */
export async function persist<Result>(
  work: () => Promise<Result>,
  deadline: number,
  stopping: AbortSignal,
): Promise<Result> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!isTransient(error) || performance.now() >= deadline || stopping.aborted) throw error;
      await pause(LONGEST_WAIT_MS, stopping);
    }
  }
}

/** Says in words what remains; `undefined` if nothing does. */
export function describeRemainder(remainder: Remainder, relay: ReturnType<Relay['status']>): string | undefined {
  if (isNothing(remainder)) return undefined;
  const { notInLog, groups } = remainder;
  const failure = relay.error === undefined ? '' : `: ${messageOf(relay.error)}`;
  const log = notInLog === 0 ? [] : [`Not in the log: ${notInLog} (the relay is ${relay.state}${failure})`];
  return [...log, ...groups.map(describeGroup)].join('. ');
}

function describeGroup({ group, behind, isKnown, note }: GroupProgress): string {
  const members = note === '' ? '' : ` (${note})`;
  return isKnown ? `Not handled by group ${group}: ${behind}${members}` : `Group ${group} was never started${members}`;
}
