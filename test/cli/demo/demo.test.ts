import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { expect, it } from 'vitest';
import { CliProcess, isRunning } from '../kit.ts';

const RUN_TIMEOUT_MS = 400_000;

/** The processes that the demo's story names. */
function processesIn(story: string): number[] {
  return [...story.matchAll(/\(process (\d+)\)/g)].map((match) => Number(match[1]));
}

/** A folder of a test's own for temporary files, which the system user of the server can reach. */
async function temporaryFolder() {
  const path = await mkdtemp(join(tmpdir(), 'tailrace-demo-test-'));
  await chmod(path, 0o755);
  return {
    env: { TMPDIR: path },
    content: () => readdir(path),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

it(
  'keeps every promise through kills and switches, says so in one document, and leaves nothing behind',
  async () => {
    await using folder = await temporaryFolder();
    await using demo = new CliProcess(['demo', '--seconds', '6', '--writers', '2', '--json'], folder.env);
    const { exitCode, out, err } = await demo.outcome();
    expect(err).not.toMatch(/\n\s+at |does not hold/);
    expect(out).toMatch(/^[^\n]+\n$/);
    const report = JSON.parse(out) as Report;
    const { committed } = report;
    expect(committed).toBeGreaterThan(100);
    expect(report).toEqual({
      committed,
      rolledBack: expect.toSatisfy((count: number) => count > 0),
      appended: committed,
      handled: { invoices: committed, 'customer-orders': committed },
      lost: 0,
      invented: 0,
      doubled: 0,
      reordered: 0,
      messagesPerSecond: expect.toSatisfy((count: number) => count > 0),
      latencyMs: { p50: expect.any(Number), p99: expect.any(Number) },
      kills: 2,
      modes: ['wal', 'polling', 'wal'],
    });
    expect(report.latencyMs.p50).toBeGreaterThan(0);
    expect(report.latencyMs.p99).toBeGreaterThan(report.latencyMs.p50);
    expect(exitCode).toBe(0);

    expect(err).toMatch(/kill -9: relay[^]*taken over[^]*kill -9: consumer 2[^]*taken over[^]*polling[^]*wal/);
    const processes = processesIn(err);
    expect(processes.length).toBeGreaterThanOrEqual(6);
    expect(processes.filter(isRunning)).toEqual([]);
    expect(await folder.content()).toEqual([]);
  },
  RUN_TIMEOUT_MS,
);

interface Report {
  readonly committed: number;
  readonly latencyMs: { readonly p50: number; readonly p99: number };
}

it(
  'ends everything when it is interrupted, with one line and exit code 1',
  async () => {
    await using demo = new CliProcess(['demo', '--json']);
    await demo.says(/writers place orders/);
    demo.child.kill('SIGINT');
    const { exitCode, out, err } = await demo.outcome();
    expect(exitCode).toBe(1);
    expect(JSON.parse(out)).toMatchObject({ error: { code: 'STOPPED' } });
    expect(err).toMatch(/\ntailrace: The demo was stopped before its end\. Nothing of it is left\.\n$/);
    const processes = processesIn(err);
    expect(processes.length).toBeGreaterThanOrEqual(3);
    expect(processes.filter(isRunning)).toEqual([]);
  },
  RUN_TIMEOUT_MS,
);

it(
  'takes its processes along when it is killed',
  async () => {
    await using folder = await temporaryFolder();
    await using demo = new CliProcess(['demo'], folder.env);
    await demo.says(/writers place orders/);
    expect(await folder.content()).toHaveLength(1);
    demo.child.kill('SIGKILL');
    const { err } = await demo.outcome();
    const processes = processesIn(err);
    expect(processes.length).toBeGreaterThanOrEqual(3);
    await expect.poll(() => processes.filter(isRunning), { timeout: 60_000 }).toEqual([]);
    await expect.poll(() => folder.content(), { timeout: 60_000 }).toEqual([]);
  },
  RUN_TIMEOUT_MS,
);

it(
  'stays there to be looked at, if it is told to, until it is interrupted',
  async () => {
    await using folder = await temporaryFolder();
    await using demo = new CliProcess(['demo', '--seconds', '3', '--keep'], folder.env);
    const [, url = ''] = await demo.says(/until Ctrl-C: psql (\S+)/);
    const client = new pg.Client(url);
    client.on('error', () => undefined);
    await client.connect();
    const invoices = await client.query('select count(*)::int as count from shop.invoice');
    expect(invoices.rows[0].count).toBeGreaterThan(0);
    const ended = new Promise((resolve) => client.once('end', resolve));
    demo.child.kill('SIGINT');
    await ended;
    const { exitCode, out } = await demo.outcome();
    expect(exitCode).toBe(0);
    expect(out).toMatch(
      /\nEvery committed order was handled once by each consumer, in order, and nothing else was\.\n$/,
    );
    expect(await folder.content()).toEqual([]);
  },
  RUN_TIMEOUT_MS,
);

it(
  'fails in one line when one of its processes ends by itself',
  async () => {
    await using demo = new CliProcess(['demo', '--json']);
    const story = await demo.says(/consumer 1 \(process (\d+)\)[^]*writers place orders/);
    process.kill(Number(story[1]), 'SIGKILL');
    const { exitCode, out, err } = await demo.outcome();
    expect(exitCode).toBe(1);
    expect(JSON.parse(out)).toMatchObject({ error: { code: 'FAILED' } });
    expect(err).toMatch(/\ntailrace: The demo's consumer 1 ended by itself \(SIGKILL.*\)\.\n$/);
    expect(processesIn(err).filter(isRunning)).toEqual([]);
  },
  RUN_TIMEOUT_MS,
);
