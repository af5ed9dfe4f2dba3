import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test, vi } from 'vitest';
import { walSource } from '../../src/relay/index.ts';
import { createTestDatabase, type TestDatabase } from '../servers/test-database.ts';
import { createCounters, whileWriting } from '../source/writers.ts';
import { exact, inLog, judgeLog, patient, publishOne, relayOf } from './kit.ts';

vi.setConfig({ testTimeout: 180_000 }); // several waits, each of which may be long on a slow machine

/** Longer than any test: who takes over from such a holder has not waited for the end of its lease. */
const LONG_LEASE_MS = 3_600_000;

class RelayProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #out = '';

  constructor({ connectionString }: TestDatabase, leaseMs: number) {
    const file = fileURLToPath(new URL('relay-process.ts', import.meta.url));
    this.child = spawn(process.execPath, [file, connectionString, String(leaseMs)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#ended = once(this.child, 'exit');
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#out += text;
    });
  }

  /** How often it has said that so far. */
  said(message: string): number {
    return this.#out.split('\n').filter((line) => line === message).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#ended;
  }
}

const LEADS = 'relaying';
const STANDS_BY = 'standing by: another relay holds the lease';

/** By whom the batches were appended, in their order, each epoch once. */
async function epochs({ pool }: TestDatabase): Promise<number[]> {
  const { rows } = await pool.query<{ epoch: number }>(
    'select epoch::int as epoch from tailrace.relay_batch order by seq',
  );
  return rows.map(({ epoch }) => epoch).filter((epoch, n, all) => epoch !== all[n - 1]);
}

/** Whether the slot was acknowledged beyond what is in the log. */
async function isSlotAhead({ pool, name }: TestDatabase): Promise<boolean | undefined> {
  const { rows } = await pool.query<{ ahead: boolean }>(
    `select confirmed_flush_lsn > (select progress::pg_lsn from tailrace.relay_batch order by seq desc limit 1) as ahead
      from pg_replication_slots where database = $1`,
    [name],
  );
  return rows[0]?.ahead;
}

test('a standby takes over from a killed relay before the lease ends', async () => {
  await using database = await createTestDatabase();
  await using killed = new RelayProcess(database, LONG_LEASE_MS);
  await expect.poll(() => killed.said(LEADS), patient).toBe(1);
  await using standby = relayOf(database, walSource);
  await standby.start();
  expect(standby.status().state).toBe('standby');
  await publishOne(database);
  await expect.poll(() => inLog(database), patient).toBe(1);
  killed.child.kill('SIGKILL');
  await expect.poll(() => standby.status().state, patient).toBe('leading');
  await publishOne(database);
  await expect.poll(() => standby.status().appended, patient).toBe(1);
  expect(await judgeLog(database)).toMatchObject({ lost: 0, doubled: 0, gaps: 0 });
});

test('a standby takes over from a stopped relay, with its slot; the one that wakes up does no harm', async () => {
  await using database = await createTestDatabase();
  await createCounters(database.pool, 8);
  await using stopped = new RelayProcess(database, 1_000);
  await expect.poll(() => stopped.said(LEADS), patient).toBeGreaterThan(0);
  await using standby = relayOf(database, walSource, { leaseMs: LONG_LEASE_MS });
  await whileWriting(database.pool, { writers: 4, transactions: 25, keys: 8, seed: 71 }, async () => {
    const grows = async (by: number): Promise<void> => {
      const before = await inLog(database);
      await expect.poll(() => inLog(database), patient).toBeGreaterThan(before + by);
    };
    await grows(100);
    await standby.start();
    await grows(100);
    stopped.child.kill('SIGSTOP');
    await expect.poll(() => standby.status().state, patient).toBe('leading');
    // A slot has one reader: the stopped one's connection to it is gone.
    await expect.poll(() => standby.status().source?.mode, patient).toBe('wal');
    await grows(100);
    stopped.child.kill('SIGCONT');
    await expect.poll(() => stopped.said(STANDS_BY), patient).toBeGreaterThan(0);
    await grows(100);
    await expect.poll(() => standby.status().state, patient).toBe('leading');
  });
  await expect.poll(async () => (await judgeLog(database)).lost, patient).toBe(0);
  expect(await judgeLog(database)).toMatchObject(exact);
  const found = await epochs(database);
  expect(found).toEqual([...found].sort((a, b) => a - b));
  await stopped[Symbol.asyncDispose]();
  await standby.stop();
  expect(await isSlotAhead(database)).toBe(false);
});
