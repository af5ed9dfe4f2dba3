import type pg from 'pg';

/** How much WAL a slot held back at a moment. */
export interface WalSample {
  readonly atMs: number;
  readonly retainedBytes: number;
}

/** From `half` (50 %) on it is worth a warning, from `most` (80 %) on an alarm; `full` is the budget's end. */
export type WalBudgetLevel = 'low' | 'half' | 'most' | 'full';

/** How far a slot has used up its budget, and when it will have at the present pace. */
export interface WalBudgetUse {
  readonly budgetBytes: number;
  readonly retainedBytes: number;
  /** 0.5 is half; above 1 it is overdrawn. */
  readonly share: number;
  readonly level: WalBudgetLevel;
  /** `undefined`: it does not grow, or there are too few samples to tell. 0: it is full. */
  readonly fullInMs: number | undefined;
}

/** Holds the newest of the samples against the budget; the others tell how fast it grows. Oldest first. */
export function walBudgetUse(samples: readonly WalSample[], budgetBytes: number): WalBudgetUse {
  const retainedBytes = samples.at(-1)?.retainedBytes ?? 0;
  const share = retainedBytes / Math.max(1, budgetBytes);
  const left = budgetBytes - retainedBytes;
  const growth = bytesPerMs(samples);
  return {
    budgetBytes,
    retainedBytes,
    share,
    level: levelOf(share),
    fullInMs: left <= 0 ? 0 : growth > 0 ? left / growth : undefined,
  };
}

function levelOf(share: number): WalBudgetLevel {
  if (share >= 1) return 'full';
  if (share >= 0.8) return 'most';
  return share >= 0.5 ? 'half' : 'low';
}

/** The slope of the straight line that fits the samples best: a slot lets go in steps, so two of them tell little. */
function bytesPerMs(samples: readonly WalSample[]): number {
  const count = samples.length;
  const mean = (of: (sample: WalSample) => number): number =>
    samples.reduce((sum, sample) => sum + of(sample), 0) / count;
  const meanMs = mean(({ atMs }) => atMs);
  const meanBytes = mean(({ retainedBytes }) => retainedBytes);
  let along = 0;
  let across = 0;
  for (const { atMs, retainedBytes } of samples) {
    along += (atMs - meanMs) * (retainedBytes - meanBytes);
    across += (atMs - meanMs) ** 2;
  }
  return across === 0 ? 0 : along / across;
}

/** What keeps a slot from letting go of WAL. */
export interface SlotWal {
  /** From the oldest WAL that it needs to the newest. */
  readonly retainedBytes: number;
  /** From what its reader has acknowledged to the newest. */
  readonly unconfirmedBytes: number;
  /** Somebody reads it. */
  readonly isActive: boolean;
  /** The transaction that has been running for longest, among those that write. */
  readonly oldestTransaction: OldestTransaction | undefined;
}

export interface OldestTransaction {
  /** As in `process 4711 (psql)`. */
  readonly name: string;
  readonly openSeconds: number;
}

/** Why the WAL is kept, as in `the write transaction of process 4711 (psql), open for 3 h`. */
export function walHolder({ retainedBytes, unconfirmedBytes, isActive, oldestTransaction }: SlotWal): string {
  if (!isActive) return 'the slot itself: nobody reads it';
  if (unconfirmedBytes * 2 > retainedBytes) return `the relay, which is ${bytes(unconfirmedBytes)} behind`;
  if (oldestTransaction === undefined) return 'the server, until its next checkpoint';
  const { name, openSeconds } = oldestTransaction;
  return `the write transaction of ${name}, open for ${duration(openSeconds * 1000)}`;
}

/** One sentence for a log or a person, without the full stop. */
export function describeWalBudget(slot: string, use: WalBudgetUse, heldBy: string): string {
  const { retainedBytes, budgetBytes, share, fullInMs } = use;
  const forecast =
    use.level === 'full'
      ? 'the budget is used up'
      : fullInMs === undefined
        ? 'not growing'
        : `full in about ${duration(fullInMs)}`;
  return `the slot ${slot} holds back ${bytes(retainedBytes)} of WAL, ${Math.round(share * 100)} % of its budget of ${bytes(budgetBytes)}: held by ${heldBy}; ${forecast}`;
}

function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : Math.round(value * 10) / 10} ${units[unit] ?? ''}`;
}

const DURATIONS: readonly (readonly [string, number])[] = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1_000],
];

/** In words, as in `3 h`. */
export function duration(ms: number): string {
  for (const [unit, unitMs] of DURATIONS) if (ms >= 1.5 * unitMs) return `${Math.round(ms / unitMs)} ${unit}`;
  return `${Math.max(1, Math.round(ms / 1000))} s`;
}

/** Reads what a slot holds back, on a primary. `undefined`: there is no such slot. */
export async function readSlotWal(client: pg.ClientBase, slot: string): Promise<SlotWal | undefined> {
  const { rows } = await client.query<{
    retained: string;
    unconfirmed: string;
    active: boolean;
    holder: string | null;
    open_seconds: number | null;
  }>(
    `select coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::text as retained,
        coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn), 0)::text as unconfirmed, s.active,
        t.holder, extract(epoch from clock_timestamp() - t.since)::float8 as open_seconds
      from pg_replication_slots s left join lateral (
        select 'process ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') as holder, xact_start as since
          from pg_stat_activity where backend_xid is not null
        union all select 'the prepared transaction ' || gid, prepared from pg_prepared_xacts
        order by since limit 1) t on true
      where s.slot_name = $1`,
    [slot],
  );
  const row = rows[0];
  if (row === undefined) return undefined;
  return {
    retainedBytes: Math.max(0, Number(row.retained)),
    unconfirmedBytes: Math.max(0, Number(row.unconfirmed)),
    isActive: row.active,
    oldestTransaction:
      row.holder === null || row.open_seconds === null
        ? undefined
        : { name: row.holder, openSeconds: Math.max(0, row.open_seconds) },
  };
}
