import { open, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../../src/base/errors.ts';
import { pause } from '../../../src/base/signal.ts';
import { closeClient, openClient } from '../../../src/postgres/connection.ts';
import type { Fault } from '../fault.ts';
import { PATIENCE_MS, type Stage } from '../stage.ts';
import { waitUntil } from '../wait-until.ts';

/** A disk that is full. */
export const DISKS: readonly Fault[] = [
  {
    name: 'disk-full',
    what: 'the disk of the server has no room left for 3 s, not for its WAL either; a server that ended over it is started again',
    slow: true,
    wantsDisk: true,
    missing: ({ disk }) =>
      Promise.resolve(disk === undefined ? 'mounting a small disk takes root on Linux' : undefined),
    async inject(stage) {
      const disk = stage.disk ?? '';
      const ballast = join(disk, 'ballast');
      await fill(disk, ballast);
      const failure = await useUpWal(stage);
      await pause(3_000, stage.stop);
      await rm(ballast);
      await untilUp(stage);
      stage.history.write('disk-full', 'info', { failure });
      return failure !== undefined;
    },
  },
];

const BLOCK = Buffer.alloc(2 ** 20);

/** Writes until nothing more fits. */
async function fill(disk: string, path: string): Promise<void> {
  const file = await open(path, 'w');
  try {
    for (;;) {
      const { bavail, bsize } = await statfs(disk);
      if (bavail === 0) return;
      await file.write(BLOCK, 0, Math.min(bavail * bsize, BLOCK.length));
    }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
  } finally {
    await file.close();
  }
}

/** Writes more than the server has set aside. Returns what that failed with. */
async function useUpWal({ cluster }: Stage): Promise<string | undefined> {
  try {
    const client = await openClient({ connectionString: cluster.url, applicationName: 'torture disk' });
    try {
      await client.query(
        `select pg_logical_emit_message(false, 'torture', repeat('x', 1000000)) from generate_series(1, 1000)`,
      );
    } finally {
      await closeClient(client);
    }
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** A crash without room for the recovery ends the server for good: then somebody has to start it again. */
async function untilUp({ cluster, database, stop }: Stage): Promise<void> {
  await waitUntil(
    async () => {
      if (!cluster.isUp) await cluster.startAgain();
      return database.answers();
    },
    PATIENCE_MS,
    stop,
  );
}
