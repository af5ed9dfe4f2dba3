import { access } from 'node:fs/promises';
import { dirname } from 'node:path';
import pg from 'pg';
import { expect, it } from 'vitest';
import { defineEvent } from '../../src/message/definition.ts';
import { startTestPipeline } from '../../src/testing/test-pipeline.ts';

const Counted = defineEvent<{ readonly n: number }>('Counted', { topic: 'counts', key: () => 'one' });

it('a test pipeline runs on a server of its own, of which nothing is left', async () => {
  const seen: number[] = [];
  const pipeline = await startTestPipeline({
    consumers: (env) => [env.consumer('seeing').on(Counted, ({ payload }) => seen.push(payload.n))],
  });
  const { rows } = await pipeline.pool.query<{ folder: string; pid: string; version: string }>(
    `select current_setting('data_directory') as folder, current_setting('server_version') as version,
       split_part(pg_read_file('postmaster.pid'), e'\\n', 1) as pid`,
  );
  const { folder = '', pid = '', version } = rows[0] ?? {};
  expect(version).toMatch(/^18\./);
  await pipeline.publish([1, 2, 3].map((n) => Counted({ n })));
  await pipeline.drained({ timeoutMs: 100_000 });
  expect(seen).toEqual([1, 2, 3]);
  expect(isRunning(Number(pid))).toBe(true);
  await pipeline.stop();
  expect(isRunning(Number(pid))).toBe(false);
  await expect(access(dirname(folder))).rejects.toMatchObject({ code: 'ENOENT' });
  await expect(new pg.Client(pipeline.connectionString).connect()).rejects.toMatchObject({ code: 'ECONNREFUSED' });
});

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
