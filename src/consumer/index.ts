export { createConsumer, type AssignmentStatus, type Consumer, type ConsumerStatus } from './consumer.ts';
export type {
  CircuitBreakerOptions,
  ConsumerDatabase,
  ConsumerMode,
  ConsumerOptions,
  DeliveryMode,
  EphemeralConsumerOptions,
  PlainConsumerOptions,
  RateLimit,
  StartFrom,
} from './options.ts';
export type {
  BatchHandler,
  BatchOptions,
  DeadLetterMode,
  DeliveryContext,
  Handler,
  HandlerContext,
  HandlerOptions,
  RecordPlace,
} from './handlers.ts';
export type { ReleaseOptions } from './verdict.ts';
export type { DelayedRetries } from './delayed-retries.ts';
export { setCanaryShare, type CanaryShare, type CanaryShareOptions } from './canary-share.ts';
export { cloneGroup, type ClonedGroup, type CloneGroupOptions } from './clone-group.ts';
export {
  abortCutover,
  cutOver,
  type CutoverGroups,
  type CutoverOptions,
  type CutoverProgress,
  type CutoverResult,
} from './cutover.ts';
export { deleteGroup, type DeletedGroup, type DeleteGroupOptions } from './delete-group.ts';
export { seekGroup, type SeekMove, type SeekOptions, type SeekTarget } from './seek.ts';
export type { GroupDatabase } from './group-admin.ts';
export type { ConsumerCounters } from './counters.ts';
export type { AssignmentState } from './assigned-partition.ts';
export type { Preset } from './presets.ts';
export type { AttemptDurations } from './attempt-durations.ts';
export { registerConsumerMetrics, type MetricsRegistry } from './metrics.ts';
export {
  discardDeadLetters,
  editAndRetryDeadLetter,
  retryDeadLetters,
  type DeadLetterEdit,
  type DeadLetterFilter,
  type DeadLetterOptions,
  type DeadLetterPlace,
  type ParkedDatabase,
} from './dead-letters.ts';
