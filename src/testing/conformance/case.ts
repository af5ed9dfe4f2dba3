import type { LogCapability } from '../../broker/capabilities.ts';
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

/** What a subject may bring along, and why a case that needs it is left out where it does not. */
export const LACKS = {
  removeBefore: 'nothing is ever removed from this log: its subject has no removeBefore',
  appendHidden: 'what has a place in this log can be seen: its subject has no appendHidden',
  replaceAppender: 'who appends to this log ends with its readers: its subject has no replaceAppender',
} as const satisfies Partial<Record<keyof LogSubject, string>>;

/** Something that a log has to do. */
export interface CaseDefinition {
  readonly level: Level;
  /** Goes on from "a log …". */
  readonly name: string;
  /** What the subject has to bring along. */
  readonly needs?: keyof typeof LACKS;
  /** Shows an ability. Where it is not declared, `refuses` shows that the log says so. */
  readonly shows?: { readonly capability: LogCapability; readonly refuses: (scene: Scene) => Promise<void> };
  /** Throws what is wrong. */
  readonly run: (scene: Scene) => Promise<void>;
}
