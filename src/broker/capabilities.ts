import { TailraceError } from '../base/errors.ts';

/**
 * What some logs can do and others cannot; what every log can do has no name here.
 *
 * - `time-seek`: `offsetsAt` finds records by the time at which they were appended.
 * - `compaction`: a topic can be made to keep the last record of each key only; offsets keep their numbers.
 * - `server-side-delay`: records can be appended that no fetch gives before a time.
 */
export type LogCapability = 'time-seek' | 'compaction' | 'server-side-delay';

/** Something that says what it can do. */
export interface Capable {
  readonly capabilities: ReadonlySet<LogCapability>;
}

/**
 * Checks that a log can do what is asked of it; `what` names that in the error's message.
 *
 * @throws TailraceError `UNSUPPORTED_CAPABILITY`.
 */
export function requireCapability({ capabilities }: Capable, capability: LogCapability, what: string): void {
  if (capabilities.has(capability)) return;
  const declared = [...capabilities].sort().join(', ');
  throw new TailraceError(
    'UNSUPPORTED_CAPABILITY',
    `${what} needs a log with the capability ${capability}; this one has ${declared === '' ? 'none' : declared}. Do without it, or use a log that has it.`,
    { details: { capability, capabilities: [...capabilities] } },
  );
}
