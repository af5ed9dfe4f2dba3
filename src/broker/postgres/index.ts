export { postgresLog, type PostgresLog } from './postgres-log.ts';
export type { MaintenanceOptions } from './maintenance/maintenance.ts';
export type { PostgresLogOptions } from './options.ts';
export type { LogCapability } from '../capabilities.ts';
export type { TopicSettings } from './topics.ts';
export type {
  Append,
  FetchOptions,
  FetchPosition,
  HomeLog,
  Log,
  LogBatch,
  LogWriter,
  OutboxHeaders,
  PartitionEnds,
  WriterOptions,
} from '../log.ts';
export type { LogRecord, NewRecord } from '../record.ts';
