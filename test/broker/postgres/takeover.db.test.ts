import { expect, it } from 'vitest';
import { isTailraceError } from '../../../src/base/errors.ts';
import type { Append, LogWriter } from '../../../src/broker/postgres/index.ts';
import { createLogFixture, idsByPartition, type LogFixture } from './fixture.ts';

/** A generator of numbers in [0, 1) that a seed determines (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const PARTITIONS = 3;
const LEAST_MESSAGES = 2_000;
const LEAST_TAKEOVERS = 25;
const HOLDERS = 4;

interface Run {
  readonly fixture: LogFixture;
  readonly random: () => number;
  readonly done: AbortController;
  takeovers: number;
  fenced: number;
  /** How many messages are in the log, as far as those who appended were told. */
  appended: number;
}

/** Appends the messages 1, 2, 3, … from its progress on, until there have been enough or the right is lost. */
async function appendRest(run: Run, writer: LogWriter): Promise<void> {
  await writer.partitionCount('orders');
  for (let from = Number(writer.progress ?? 0); !run.done.signal.aborted;) {
    const count = 1 + Math.floor(run.random() * 10);
    const ids = Array.from({ length: count }, (_, n) => from + n + 1);
    const appends: Append[] = ids.map((id) => ({ topic: 'orders', partition: id % PARTITIONS, ids: [id] }));
    await writer.append({ appends, progress: String(from + count) });
    from += count;
    run.appended = Math.max(run.appended, from);
    if (from >= LEAST_MESSAGES && run.takeovers >= LEAST_TAKEOVERS && run.fenced > 3) run.done.abort();
  }
}

/** A relay that takes the right again and again, whatever happens to it. */
async function holder(run: Run, name: string): Promise<void> {
  const log = run.fixture.openLog({ partitions: PARTITIONS });
  while (!run.done.signal.aborted) {
    try {
      const writer = await log.acquireWriter({ holder: name, leaseMs: 1_000, signal: run.done.signal });
      run.takeovers++;
      await appendRest(run, writer);
    } catch (error) {
      if (!isTailraceError(error)) throw error;
      if (error.code === 'LEASE_LOST') run.fenced++;
      else if (error.code !== 'STOPPED') throw error;
    }
    // Not released: a fenced writer stays around, as a process that was stopped and goes on.
  }
}

/** Takes leases away from the living, and cuts connections. */
async function nemesis(run: Run): Promise<void> {
  while (!run.done.signal.aborted) {
    const { pool, database } = run.fixture;
    if (run.random() < 0.6) await pool.query('update tailrace.relay_lease set expires_at = clock_timestamp()');
    else {
      await pool.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
          where datname = $1 and application_name like 'tailrace writer%' and random() < $2`,
        [database.name, run.random()],
      );
    }
    for (let n = Math.floor(run.random() * 30); n > 0; n--) await pool.query('select');
  }
}

it(
  'keeps the log dense and every message once in it while writers take over from each other',
  { timeout: 400_000 },
  async () => {
    await using fixture = await createLogFixture();
    const seed = Math.floor(Math.random() * 2 ** 31);
    const random = seeded(seed);
    const run: Run = { fixture, random, done: new AbortController(), takeovers: 0, fenced: 0, appended: 0 };
    const holders = Array.from({ length: HOLDERS }, (_, n) => holder(run, `holder-${n}`));
    await Promise.all([...holders, nemesis(run)]);

    const { rows } = await fixture.pool.query<{ progress: string }>(
      'select progress from tailrace.relay_batch order by seq desc limit 1',
    );
    const appended = Number(rows[0]?.progress);
    const found = await idsByPartition(fixture.pool);
    const ids = Array.from({ length: appended }, (_, n) => n + 1);
    const expected = [0, 1, 2].map((partition) => ids.filter((id) => id % PARTITIONS === partition));
    const context = `seed ${seed}, ${run.takeovers} takeovers, ${run.fenced} fenced`;
    expect(appended, context).toBeGreaterThanOrEqual(run.appended);
    expect(
      [0, 1, 2].map((partition) => found.get(partition)),
      context,
    ).toEqual(expected);
  },
);
