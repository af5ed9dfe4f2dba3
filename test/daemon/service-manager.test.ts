import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { serviceManager } from '../../src/daemon/service-manager.ts';

test('gives no further sign of life while systemd has not taken the last one', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tailrace-notify-'));
  const said = join(folder, 'said');
  const pidFile = join(folder, 'pid');
  const program = join(folder, 'systemd-notify');
  // Takes the word of a beginning at once, and that of a sign of life never, as a systemd that stalls.
  const stall = `echo $$ > ${pidFile}; while [ -e ${said} ]; do sleep 0.02; done`;
  await writeFile(
    program,
    `#!/bin/sh
echo "$1" >> ${said}
if [ "$1" = WATCHDOG=1 ]; then ${stall}; fi
`,
  );
  await chmod(program, 0o755);
  const PATH = `${folder}:/usr/bin:/bin`;
  const lines = async (): Promise<string[]> => (await readFile(said, 'utf8').catch(() => '')).trim().split('\n');
  try {
    const manager = serviceManager({ NOTIFY_SOCKET: '/none', WATCHDOG_USEC: '20000', PATH }, silentLogger);
    manager.ready();
    await expect.poll(lines, { timeout: 10_000, interval: 10 }).toEqual(['READY=1', 'WATCHDOG=1']);
    for (let n = 0; n < 10; n++) {
      manager.stopping(); // ten rounds of a program take many intervals of 10 ms
      await expect.poll(async () => (await lines()).length, { timeout: 10_000, interval: 10 }).toBe(n + 3);
    }
    expect((await lines()).filter((line) => line === 'WATCHDOG=1')).toHaveLength(1);
  } finally {
    const pid = Number(await readFile(pidFile, 'utf8'));
    await rm(folder, { recursive: true, force: true });
    await expect.poll(() => isRunning(pid), { timeout: 10_000, interval: 10 }).toBe(false);
  }
});

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
