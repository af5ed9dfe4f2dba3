import type pg from 'pg';
import { pause } from '../../base/signal.ts';
import { duration, readSlotWal, walBudgetUse, walHolder, type WalSample } from '../../source/wal/wal-budget.ts';

/** How the WAL that a slot holds back grows, and why it is kept. */
export interface SlotGrowth {
  /** Two looks a moment apart. */
  readonly samples: readonly WalSample[];
  /** As in `the relay, which is 3 GiB behind`. */
  readonly heldBy: string;
  /** What the server has written since its statistics began; `undefined` where they do not say. */
  readonly average: AveragePace | undefined;
}

export interface AveragePace {
  readonly bytesPerSecond: number;
  /** The day on which the statistics began. */
  readonly since: string;
}

const BETWEEN_LOOKS_MS = 1_000;

/** Looks twice. `undefined`: there is no such slot any more. For a primary. */
export async function readSlotGrowth(client: pg.Client, slot: string): Promise<SlotGrowth | undefined> {
  const first = await readSlotWal(client, slot);
  const firstAtMs = performance.now();
  await pause(BETWEEN_LOOKS_MS);
  const second = await readSlotWal(client, slot);
  if (first === undefined || second === undefined) return undefined;
  return {
    samples: [
      { atMs: firstAtMs, retainedBytes: first.retainedBytes },
      { atMs: performance.now(), retainedBytes: second.retainedBytes },
    ],
    heldBy: walHolder(second),
    // a slot that is read lets go of what the server writes, so only its own growth says when it is full
    average: second.isActive ? undefined : await readAveragePace(client),
  };
}

async function readAveragePace(client: pg.Client): Promise<AveragePace | undefined> {
  const { rows } = await client.query<{ bytes_per_second: number | null; since: string | null }>(
    `select (wal_bytes / nullif(extract(epoch from clock_timestamp() - stats_reset), 0))::float8 as bytes_per_second,
        to_char(stats_reset, 'YYYY-MM-DD') as since from pg_stat_wal`,
  );
  const [row] = rows;
  if (row === undefined || row.bytes_per_second === null || row.since === null) return undefined;
  return { bytesPerSecond: row.bytes_per_second, since: row.since };
}

/**
 * When the budget is used up, and what that is based on: the pace between the two looks, or the average, whichever fills it
 * sooner. The looks see what is written now; the average sees what comes and goes.
 */
export function forecast({ samples, average }: SlotGrowth, budgetBytes: number): string {
  const { fullInMs, retainedBytes } = walBudgetUse(samples, budgetBytes);
  if (retainedBytes >= budgetBytes) return 'The budget is used up.';
  const [first, last] = [samples[0]?.atMs ?? 0, samples.at(-1)?.atMs ?? 0];
  const paces = [
    { ms: fullInMs ?? Infinity, basis: `the pace of the last ${((last - first) / 1_000).toFixed(1)} s` },
    {
      ms: ((budgetBytes - retainedBytes) / Math.max(0, average?.bytesPerSecond ?? 0)) * 1_000,
      basis: `the average pace since ${average?.since ?? ''}`,
    },
  ];
  const soonest = paces.reduce((a, b) => (b.ms < a.ms ? b : a));
  if (soonest.ms === Infinity) return `It did not grow in the last ${((last - first) / 1_000).toFixed(1)} s.`;
  return `Full in about ${duration(soonest.ms)} at ${soonest.basis}.`;
}
