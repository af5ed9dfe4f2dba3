export { createRelayDaemon } from './relay-daemon.ts';
export type { RelayDaemon, RelayDaemonOptions, RelayMode } from './relay-daemon.ts';
export type { RelayState, RelayStatus } from '../relay/relay.ts';
