import { execFile, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const ENOUGH_BYTES = 4 * 1024 ** 3;

const run = promisify(execFile);

/** A folder of the run's own, which leaves with it. */
export interface RunFolder extends AsyncDisposable {
  readonly path: string;
  /** A small disk of its own, mounted in it, if one was wanted and could be had. */
  readonly disk: string | undefined;
}

const DISK = 'disk';
const DISK_SIZE = '3g';

/**
 * Makes it in memory where there is room: no fault takes the power away from the machine, and what is killed loses nothing that
 * it has written. If the run itself is killed, a shell removes the folder.
 */
export async function makeRunFolder(wantsDisk: boolean): Promise<RunFolder> {
  const path = await mkdtemp(join(await parentFolder(), 'tailrace-torture-'));
  await chmod(path, 0o755); // the system user who runs the server has to reach its data
  const disk = wantsDisk ? await mountDisk(path) : undefined;
  const janitor = spawn('/bin/sh', ['-c', JANITOR, path], {
    detached: true,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  janitor.unref();
  return {
    path,
    disk,
    async [Symbol.asyncDispose]() {
      if (disk !== undefined) await run('umount', ['--lazy', disk]);
      await rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
      janitor.kill('SIGKILL');
    },
  };
}

/** The server, which ends with the run as well, may write for a moment longer: so it removes again and again, and once more. */
const JANITOR = `
  read -r _
  umount --lazy "$0/${DISK}" 2>/dev/null
  n=0; while [ "$n" -lt 100 ] && ! rm -rf -- "$0" 2>/dev/null; do n=$((n + 1)); sleep 0.2; done
  sleep 3; rm -rf -- "$0"`;

async function mountDisk(folder: string): Promise<string | undefined> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return undefined;
  const disk = join(folder, DISK);
  await mkdir(disk);
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${DISK_SIZE},mode=755`, 'tmpfs', disk]);
    return disk;
  } catch {
    return undefined; // a container may forbid it
  }
}

async function parentFolder(): Promise<string> {
  const memory = process.env['TAILRACE_TEST_MEMORY_DIR'] ?? '/dev/shm';
  const stats = await statfs(memory).catch(() => undefined);
  return stats !== undefined && stats.bavail * stats.bsize >= ENOUGH_BYTES ? memory : tmpdir();
}
