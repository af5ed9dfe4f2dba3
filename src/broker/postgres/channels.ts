/** What is said over NOTIFY: that the log has grown, or that the lease was given up. */
export type ChannelTopic = 'log' | 'lease';

/** Postgres refuses longer names. Two schemas that share a channel would only wake each other for nothing. */
const LONGEST_NAME = 63;

/** The NOTIFY channel of a schema. */
export function channelOf(schema: string, topic: ChannelTopic): string {
  const suffix = `_${topic}`;
  return schema.slice(0, LONGEST_NAME - suffix.length) + suffix;
}
