import type pg from 'pg';

/** Half of the messages were faster than `p50`, 99 in a hundred faster than `p99`; in milliseconds. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
}

/** How many orders were counted in each of equally long pieces of the run. */
export interface RateLine {
  readonly name: string;
  readonly counts: readonly number[];
}

/** How fast a run was. */
export interface Measures {
  /** Orders a second, from the first commit to the last effect. */
  readonly messagesPerSecond: number;
  /** From the moment at which COMMIT had returned to the handler's effect, over all messages and both consumers. */
  readonly latencyMs: Latency;
  /** The same for messages committed before the first kill. */
  readonly steadyLatencyMs: Latency;
  /** When the first order was committed, in Unix milliseconds, and how long after that the last effect was written. */
  readonly startedAtMs: number;
  readonly durationMs: number;
  readonly rates: readonly RateLine[];
}

/** How many pieces the run is cut into for {@link Measures.rates}. */
export const PIECES = 60;

const COMMITS = `select order_id, extract(epoch from ended_at) * 1000 as ms from shop.attempt where outcome = 'committed'`;
const APPENDS = `select extract(epoch from appended_at) * 1000 as ms, count from tailrace.log_entry`;
const EFFECTS = `select order_id, extract(epoch from handled_at) * 1000 as ms from`;

/** Reads from the tables how fast the run was. `disturbedAtMs` is when it was first disturbed, in Unix milliseconds. */
export async function readMeasures(pool: pg.Pool, committed: number, disturbedAtMs: number): Promise<Measures> {
  const { startedAtMs, endedAtMs } = await readSpan(pool);
  const durationMs = Math.max(1, endedAtMs - startedAtMs);
  const rate = async (name: string, events: string): Promise<RateLine> => ({
    name,
    counts: await readCounts(pool, events, startedAtMs, durationMs),
  });
  return {
    messagesPerSecond: Math.round((committed / durationMs) * 1_000),
    latencyMs: await readLatency(pool, Number.MAX_SAFE_INTEGER),
    steadyLatencyMs: await readLatency(pool, disturbedAtMs),
    startedAtMs,
    durationMs,
    rates: [
      await rate('committed', `select ms, 1 as count from (${COMMITS}) c`),
      await rate('log', APPENDS),
      await rate('invoices', `select ms, 1 as count from (${EFFECTS} shop.invoice) e`),
      await rate('customer-orders', `select ms, 1 as count from (${EFFECTS} shop.customer_orders_effect) e`),
    ],
  };
}

async function readSpan(pool: pg.Pool): Promise<{ startedAtMs: number; endedAtMs: number }> {
  const result = await pool.query<{ started: number | null; ended: number | null }>(
    `select (select min(ms) from (${COMMITS}) c)::float8 as started,
       (select max(ms) from (${EFFECTS} shop.invoice union all ${EFFECTS} shop.customer_orders_effect) e)::float8 as ended`,
  );
  const [row] = result.rows;
  return { startedAtMs: row?.started ?? 0, endedAtMs: row?.ended ?? 0 };
}

/** Both times were taken by processes of one machine. A handler can be faster than the writer's look at the clock: that is 0. */
async function readLatency(pool: pg.Pool, committedBeforeMs: number): Promise<Latency> {
  const result = await pool.query<{ p50: number | null; p99: number | null }>(
    `select percentile_cont(0.5) within group (order by greatest(0, e.ms - c.ms)) as p50,
       percentile_cont(0.99) within group (order by greatest(0, e.ms - c.ms)) as p99
     from (${COMMITS}) c
     join (${EFFECTS} shop.invoice union all ${EFFECTS} shop.customer_orders_effect) e using (order_id)
     where c.ms < $1::float8`,
    [committedBeforeMs],
  );
  const [row] = result.rows;
  return { p50: rounded(row?.p50), p99: rounded(row?.p99) };
}

function rounded(ms: number | null | undefined): number {
  return Math.round((ms ?? 0) * 100) / 100;
}

async function readCounts(pool: pg.Pool, events: string, startedAtMs: number, durationMs: number): Promise<number[]> {
  const result = await pool.query<{ piece: number; count: number }>(
    `select least($3::int, greatest(1, width_bucket(ms::float8, $1::float8, $2::float8, $3::int))) as piece, sum(count)::int as count
     from (${events}) e group by piece`,
    [startedAtMs, startedAtMs + durationMs, PIECES],
  );
  const counts = new Array<number>(PIECES).fill(0);
  for (const { piece, count } of result.rows) counts[piece - 1] = count;
  return counts;
}
