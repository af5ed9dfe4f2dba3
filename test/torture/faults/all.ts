import type { Fault } from '../fault.ts';
import { CLOCKS } from './clocks.ts';
import { CONSUMERS } from './consumers.ts';
import { CRASHES } from './crashes.ts';
import { DISKS } from './disk.ts';
import { EDGES } from './edges.ts';
import { HANDLERS } from './handlers.ts';
import { LEAVING } from './leaving.ts';
import { LOADS } from './loads.ts';
import { PARTITIONS } from './partitions.ts';
import { RELAYS } from './relays.ts';
import { SERVERS } from './servers.ts';
import { SLOTS } from './slots.ts';

/** Every fault that a run can inject. */
export const FAULTS: readonly Fault[] = [
  ...CRASHES,
  ...CONSUMERS,
  ...HANDLERS,
  ...SERVERS,
  ...SLOTS,
  ...LOADS,
  ...RELAYS,
  ...EDGES,
  ...CLOCKS,
  ...PARTITIONS,
  ...LEAVING,
  ...DISKS,
];
