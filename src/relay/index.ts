export { createRelay } from './relay.ts';
export type { Relay, RelayOptions, RelayState, RelayStatus } from './relay.ts';
export { walSource } from '../source/wal/wal-source.ts';
export type { WalSourceOptions } from '../source/wal/wal-source.ts';
export { pollingSource } from '../source/polling/polling-source.ts';
export type { PollingOptions } from '../source/polling/polling-source.ts';
export type { Resume, Source, SourceBatch, SourceReader, SourceStatus } from '../source/source.ts';
export type { DeadLetters, RelayMode } from '../broker/log.ts';
