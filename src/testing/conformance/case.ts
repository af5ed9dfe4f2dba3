import type { LogCapability } from '../../broker/capabilities.ts';
import type { Log, TargetLog } from '../../broker/log.ts';
import type { Scene } from './scene.ts';
import type { LogSubject } from './subject.ts';

/** What the levels are about. */
export const LEVELS = {
  0: 'contract',
  1: 'delivery',
  2: 'order',
  3: 'groups',
  4: 'log',
  6: 'producer',
  7: 'history',
} as const;

/** A level of the suite. Routing (5) is no matter of a log, and speed (8) is measured, not tested. */
export type Level = keyof typeof LEVELS;

/** What a case may need, and why it is left out where the log or its subject has no such thing. */
export const NEEDS = {
  removal: {
    isMet: (subject) => subject.removeBefore !== undefined,
    why: 'nothing is ever removed from this log: its subject has no removeBefore',
  },
  hiding: {
    isMet: (subject) => subject.appendHidden !== undefined,
    why: 'what has a place in this log can be seen: its subject has no appendHidden',
  },
  processes: {
    isMet: (subject) => subject.startProcess !== undefined,
    why: 'no other process can reach this log: its subject has no startProcess',
  },
  target: {
    isMet: ({ log }) => isTargetLog(log),
    why: 'no forwarder appends to this log: it has no append of its own',
  },
} as const satisfies Record<string, { readonly isMet: (subject: LogSubject) => boolean; readonly why: string }>;

/** Whether forwarders append to a log. */
export function isTargetLog(log: Log): log is TargetLog {
  return 'append' in log && 'createTopic' in log;
}

/** Something that a log has to do. */
export interface CaseDefinition {
  readonly level: Level;
  /** Goes on from "a log …". */
  readonly name: string;
  /** Without which it is left out. */
  readonly needs?: keyof typeof NEEDS;
  /** Shows an ability. Where it is not declared, `refuses` shows that the log says so. */
  readonly shows?: { readonly capability: LogCapability; readonly refuses: (scene: Scene) => Promise<void> };
  /** Throws what is wrong. */
  readonly run: (scene: Scene) => Promise<void>;
}
