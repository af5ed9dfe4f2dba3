import { access } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { expect, it } from 'vitest';
import { runAlone } from './run-alone.ts';

/** Runs a small program, with little patience for what it leaves behind if that is what it is to do. */
const runProgram = (text: string, graceMs = 500) => runAlone(process.execPath, ['--eval', text], { graceMs });
const PATIENTLY_MS = 100_000;

const STARTS = `
  const fs = require('node:fs'); const os = require('node:os'); const path = require('node:path');
  const { spawn } = require('node:child_process');
  const start = (text, ...args) => spawn(process.execPath, ['--eval', text, ...args], { detached: true, stdio: 'ignore' });
`;

it('finds nothing after a program that cleans up', async () => {
  const outcome = await runProgram(
    `${STARTS}
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tailrace-'));
    fs.rmSync(folder, { recursive: true });
    start('').once('exit', () => process.exit(0));
  `,
    PATIENTLY_MS,
  );
  expect(outcome).toEqual({ exitCode: 0, leftovers: [] });
});

it('tells how the program ended', async () => {
  expect(await runProgram('process.exitCode = 3')).toEqual({ exitCode: 3, leftovers: [] });
  expect(await runProgram(`process.kill(process.pid, 'SIGKILL')`)).toEqual({ exitCode: null, leftovers: [] });
});

it('finds a process that outlives its parent, with the port that it holds, and ends it', async () => {
  const port = await freePort();
  const server = `require('node:net').createServer().listen(${String(port)}, '127.0.0.1', () => process.send(0))`;
  const { exitCode, leftovers } = await runProgram(`
    const { spawn } = require('node:child_process');
    const args = ['--eval', ${JSON.stringify(server)}, 'the-planted-one'];
    const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    child.once('message', () => process.exit(0));
  `);
  expect(exitCode).toBe(0);
  expect(leftovers).toEqual([expect.stringMatching(/^process \d+: .*the-planted-one$/)]);
  await expect.poll(() => answers(port)).toBe(false);
});

it('waits for what is about to end', async () => {
  const program = `${STARTS} start('setTimeout(() => {}, 200)').unref(); process.exit(0);`;
  const outcome = await runProgram(program, PATIENTLY_MS);
  expect(outcome.leftovers).toEqual([]);
});

it.each([
  ['temporary folder', 'os.tmpdir()'],
  ['folder in memory', 'process.env.TAILRACE_TEST_MEMORY_DIR ?? os.tmpdir()'],
])('finds what lies in the %s, and removes it', async (_what, where) => {
  const { leftovers } = await runProgram(`${STARTS} fs.mkdirSync(path.join(${where}, 'tailrace-planted'));`);
  expect(leftovers).toEqual([expect.stringMatching(/^file or folder: .*\/tailrace-run-\w+\/tailrace-planted$/)]);
  await expect(access(leftovers[0]?.replace('file or folder: ', '') ?? '')).rejects.toThrow(/ENOENT/);
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => {
        resolve(port);
      });
    });
  });
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => {
      resolve(false);
    });
  });
}
