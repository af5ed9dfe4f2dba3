import { pause } from '../../src/base/signal.ts';
import type { Database } from './database.ts';
import { GROUPS } from './groups.ts';
import { BULK_KEY } from './tables.ts';

const LOOK_MS = 200;
/** How long nothing at all may move before it counts as never. */
const STALL_MS = 60_000;

interface Fill {
  readonly wanted: number;
  readonly toHandle: number;
  readonly inLog: number;
  readonly effects: number;
}

/** Waits until everything is in the log and handled. Returns false once nothing moves any more and it is not. */
export async function drain(database: Database, stop: AbortSignal): Promise<boolean> {
  let seen = '';
  let movedMs = performance.now();
  while (!stop.aborted) {
    const fill = await readFill(database);
    if (fill.inLog >= fill.wanted && fill.effects >= fill.toHandle * GROUPS.length) return true;
    const now = JSON.stringify(fill);
    if (now !== seen) movedMs = performance.now();
    seen = now;
    if (performance.now() - movedMs > STALL_MS) return false;
    await pause(LOOK_MS, stop);
  }
  return false;
}

async function readFill(database: Database): Promise<Fill> {
  const row = await database.one<{ wanted: string; to_handle: string; in_log: string; effects: string }>(
    `select (select count(*) from torture.truth) as wanted, (select count(*) from torture.truth where k <> $1) as to_handle,
       (select coalesce(sum(count), 0) from tailrace.log_entry) as in_log,
       (select count(*) from torture.effect) as effects`,
    [BULK_KEY],
  );
  return {
    wanted: Number(row.wanted),
    toHandle: Number(row.to_handle),
    inLog: Number(row.in_log),
    effects: Number(row.effects),
  };
}
