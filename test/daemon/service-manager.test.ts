import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { serviceManager } from '../../src/daemon/service-manager.ts';

const patient = { timeout: 60_000, interval: 10 };

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
    const startedMs = performance.now();
    const manager = serviceManager({ NOTIFY_SOCKET: '/none', WATCHDOG_USEC: '20000', PATH }, silentLogger);
    manager.ready();
    const count = async (word: string): Promise<number> => (await lines()).filter((line) => line === word).length;
    await expect.poll(() => count('WATCHDOG=1'), patient).toBeGreaterThan(0);
    expect((await lines()).slice(0, 2)).toEqual(['READY=1', 'WATCHDOG=1']);
    for (let n = 1; n <= 10; n++) {
      manager.stopping(); // ten rounds of a program take many intervals of 10 ms
      await expect.poll(() => count('STOPPING=1'), patient).toBe(n);
    }
    const signs = await count('WATCHDOG=1');
    const givenUp = Math.floor((performance.now() - startedMs) / 5_000); // a program that hangs is ended after so long
    expect(signs).toBeLessThanOrEqual(1 + givenUp);
  } finally {
    const pid = Number(await readFile(pidFile, 'utf8'));
    await rm(folder, { recursive: true, force: true });
    await expect.poll(() => isRunning(pid), patient).toBe(false);
  }
});

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
