export { createRelayDaemon } from './relay-daemon.ts';
export type { RelayDaemon, RelayDaemonOptions } from './relay-daemon.ts';
export type { RelayMode } from '../broker/log.ts';
export type { WalBudgetPolicy } from '../relay/index.ts';
export type { RelayState, RelayStatus } from '../relay/relay.ts';
