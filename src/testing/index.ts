export { startTestPipeline } from './test-pipeline.ts';
export type { TestConsumerOptions, TestEnvironment, TestPipeline, TestPipelineOptions } from './test-pipeline.ts';
export { createTestDatabase } from './test-database.ts';
export type { TestDatabase, TestDatabaseOptions } from './test-database.ts';
export type { DeadLetter } from './dead-letters.ts';
export { logConformance } from './conformance/log-conformance.ts';
export type {
  CaseOutcome,
  ConformanceCase,
  LogConformance,
  LogConformanceOptions,
} from './conformance/log-conformance.ts';
export { runConformance } from './conformance/report.ts';
export type { CaseReport, ConformanceReport, LevelReport } from './conformance/report.ts';
export { runConformanceProcess, type ConformanceHost } from './conformance/conformance-process.ts';
export { targetLogSubject, type LogSubject } from './conformance/subject.ts';
export type { Level } from './conformance/case.ts';
export { checkHistory } from './history/check-history.ts';
export type { Anomaly, AnomalyKind, HistoryVerdict } from './history/check-history.ts';
export type {
  AppendEvent,
  AssignEvent,
  CommitEvent,
  FinalReadEvent,
  HistoryEvent,
  Outcome,
  PollEvent,
  ReadValue,
  SeekEvent,
} from './history/history.ts';
export { startLocalServer } from '../postgres/local-server.ts';
export type { LocalServer, LocalServerOptions } from '../postgres/local-server.ts';
export type { ServerSettings } from '../postgres/server-settings.ts';
