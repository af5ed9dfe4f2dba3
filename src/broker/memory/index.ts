export { memoryLog, type MemoryLog, type MemoryLogOptions } from './memory-log.ts';
export type { LogCapability } from '../capabilities.ts';
export type {
  FetchOptions,
  FetchPosition,
  Log,
  PartitionEnds,
  RecordsToAppend,
  TargetLog,
  TopicOptions,
} from '../log.ts';
export type { LogRecord, NewRecord } from '../record.ts';
