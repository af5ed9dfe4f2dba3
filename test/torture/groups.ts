/** The consumer groups, each of which must handle everything once: message by message, and many in a transaction. */
export const GROUPS = ['single', 'batch'] as const;

export type Group = (typeof GROUPS)[number];
