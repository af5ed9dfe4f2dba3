export { startTestPipeline } from './test-pipeline.ts';
export type { TestConsumerOptions, TestEnvironment, TestPipeline, TestPipelineOptions } from './test-pipeline.ts';
export { createTestDatabase } from './test-database.ts';
export type { TestDatabase, TestDatabaseOptions } from './test-database.ts';
export type { DeadLetter } from './dead-letters.ts';
export { startLocalServer } from '../postgres/local-server.ts';
export type { LocalServer, LocalServerOptions } from '../postgres/local-server.ts';
export type { ServerSettings } from '../postgres/server-settings.ts';
