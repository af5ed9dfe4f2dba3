import type pg from 'pg';
import { pause } from '../../base/signal.ts';
import { formatCount } from './format.ts';
import type { Progress } from './progress.ts';

/** How far a run has come. */
export interface Figures {
  readonly committed: number;
  readonly rolledBack: number;
  readonly logged: number;
  readonly invoiced: number;
  readonly viewed: number;
}

/** Counts the rows. */
export async function readFigures(pool: pg.Pool): Promise<Figures> {
  const result = await pool.query<Figures>(
    `select (select count(*) from shop.orders)::int as "committed",
       (select count(*) from shop.attempt where outcome <> 'committed')::int as "rolledBack",
       (select coalesce(sum(count), 0) from tailrace.log_entry)::int as "logged",
       (select count(*) from shop.invoice)::int as "invoiced",
       (select count(*) from shop.customer_orders_effect)::int as "viewed"`,
  );
  return result.rows[0] ?? { committed: 0, rolledBack: 0, logged: 0, invoiced: 0, viewed: 0 };
}

/** Whether every consumer has caught up with the writers. */
export function isDrained({ committed, logged, invoiced, viewed }: Figures): boolean {
  return Math.min(logged, invoiced, viewed) >= committed;
}

const SHOW_INTERVAL_MS = 500;

/** Shows the figures now and then, from the first order on, until the signal fires. */
export async function showFigures(pool: pg.Pool, progress: Progress, signal: AbortSignal): Promise<void> {
  let before = 0;
  let beforeMs = performance.now();
  while (!signal.aborted) {
    const figures = await readFigures(pool);
    const nowMs = performance.now();
    const perSecond = ((figures.committed - before) / (nowMs - beforeMs)) * 1_000;
    [before, beforeMs] = [figures.committed, nowMs];
    if (figures.committed > 0 && !isAborted(signal)) progress.show(describeFigures(figures, perSecond));
    await pause(SHOW_INTERVAL_MS, signal);
  }
}

/** The signal may have fired during an await. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

function describeFigures({ committed, rolledBack, logged, invoiced, viewed }: Figures, perSecond: number): string {
  const behind = [
    `log ${formatCount(committed - logged)}`,
    `invoices ${formatCount(committed - invoiced)}`,
    `view ${formatCount(committed - viewed)}`,
  ];
  const parts = [
    `${formatCount(Math.round(perSecond))}/s`,
    `${formatCount(committed)} orders`,
    `${formatCount(rolledBack)} rolled back`,
    `behind: ${behind.join(', ')}`,
  ];
  return parts.join(' · ');
}
