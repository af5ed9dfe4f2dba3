import { pause } from '../../src/base/signal.ts';
import type { Database } from './database.ts';
import { GROUPS } from './groups.ts';
import { BULK_KEY } from './tables.ts';

const LOOK_MS = 200;

export interface DrainOptions {
  /** Of the log and the truth. */
  readonly database: Database;
  /** What handlers write to. */
  readonly handlers: Database;
  /** How long nothing at all may move before it counts as never. */
  readonly patienceMs: number;
  readonly stop: AbortSignal;
}

interface Fill {
  readonly wanted: number;
  readonly toHandle: number;
  readonly inLog: number;
  readonly effects: number;
}

/** Waits until everything is in the log and handled. Returns false once nothing moves any more and it is not. */
export async function drain(options: DrainOptions): Promise<boolean> {
  const { patienceMs, stop } = options;
  let seen = '';
  let movedMs = performance.now();
  while (!stop.aborted) {
    const fill = await readFill(options);
    const isFull = fill.inLog >= fill.wanted && fill.effects >= fill.toHandle * GROUPS.length;
    if (isFull && (await areAllHandled(options))) return true;
    const now = JSON.stringify(fill);
    if (now !== seen) movedMs = performance.now();
    seen = now;
    if (performance.now() - movedMs > patienceMs) return false;
    await pause(LOOK_MS, stop);
  }
  return false;
}

async function readFill({ database, handlers }: DrainOptions): Promise<Fill> {
  const row = await database.one<{ wanted: string; to_handle: string; in_log: string }>(
    `select (select count(*) from torture.truth) as wanted, (select count(*) from torture.truth where k <> $1) as to_handle,
       (select coalesce(sum(count), 0) from tailrace.log_entry) as in_log`,
    [BULK_KEY],
  );
  const { effects } = await handlers.one<{ effects: string }>('select count(*) as effects from torture.effect');
  return {
    wanted: Number(row.wanted),
    toHandle: Number(row.to_handle),
    inLog: Number(row.in_log),
    effects: Number(effects),
  };
}

/** On a server of its own the handlers' database may have effects of messages that a failover of the log has undone. */
async function areAllHandled({ database, handlers }: DrainOptions): Promise<boolean> {
  if (handlers === database) return true;
  const truth = await database.query<{ id: string }>('select id from torture.truth where k <> $1', [BULK_KEY]);
  for (const group of GROUPS) {
    const effects = await handlers.query<{ id: string }>('select id from torture.effect where group_name = $1', [
      group,
    ]);
    const handled = new Set(effects.map(({ id }) => id));
    if (!truth.every(({ id }) => handled.has(id))) return false;
  }
  return true;
}
