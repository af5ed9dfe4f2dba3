import type { Fault } from '../fault.ts';
import { CRASHES } from './crashes.ts';

/** Every fault that a run can inject. */
export const FAULTS: readonly Fault[] = [...CRASHES];
