/** The consumer groups, each of which must handle everything once: message by message, and many in a transaction. */
export const GROUPS = ['single', 'batch'] as const;

export type Group = (typeof GROUPS)[number];

/** The points at which a consumer can be made to die or to stand still. */
export const CONSUMER_POINTS = ['handler.before', 'handler.after'] as const;
