import { freePort } from '../../src/postgres/server-settings.ts';
import { findServer } from './find-server.ts';
import { type RunningServer, givenServer, launch, startOwnServer } from './test-server.ts';

/** A Redis: the one in `TAILRACE_TEST_REDIS_URL`, or one of its own, which keeps nothing on disk unless `settings` say so. */
export async function startRedis(settings: Readonly<Record<string, string>> = {}): Promise<RunningServer> {
  const found = await findServer({
    name: 'Redis',
    variable: 'TAILRACE_TEST_REDIS_URL',
    program: 'redis-server',
    debianPackage: 'redis-server',
  });
  if ('url' in found) return givenServer(found.url);
  return startOwnServer(async (folder) => {
    const port = await freePort();
    const all = { bind: '127.0.0.1', port: String(port), dir: folder, save: '', appendonly: 'no', ...settings };
    const args = Object.entries(all).flatMap(([name, value]) => [`--${name}`, value]);
    const redis = await launch({ program: found.program, args, ready: /Ready to accept connections/ });
    return { url: `redis://127.0.0.1:${String(port)}`, processes: [redis] };
  });
}
