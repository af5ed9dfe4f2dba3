import { spawn } from 'node:child_process';
import { chmod, mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ENOUGH_BYTES = 4 * 1024 ** 3;

/** A folder of the run's own, which leaves with it. */
export interface RunFolder extends AsyncDisposable {
  readonly path: string;
}

/**
 * Makes it in memory where there is room: no fault takes the power away from the machine, and what is killed loses nothing that
 * it has written. If the run itself is killed, a shell removes the folder.
 */
export async function makeRunFolder(): Promise<RunFolder> {
  const path = await mkdtemp(join(await parentFolder(), 'tailrace-torture-'));
  await chmod(path, 0o755); // the system user who runs the server has to reach its data
  const script =
    'read -r _; n=0; while [ "$n" -lt 100 ] && ! rm -rf -- "$0" 2>/dev/null; do n=$((n + 1)); sleep 0.2; done';
  const janitor = spawn('/bin/sh', ['-c', `${script}; sleep 3; rm -rf -- "$0"`, path], {
    detached: true,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  janitor.unref();
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
      janitor.kill('SIGKILL');
    },
  };
}

async function parentFolder(): Promise<string> {
  const memory = process.env['TAILRACE_TEST_MEMORY_DIR'] ?? '/dev/shm';
  const stats = await statfs(memory).catch(() => undefined);
  return stats !== undefined && stats.bavail * stats.bsize >= ENOUGH_BYTES ? memory : tmpdir();
}
