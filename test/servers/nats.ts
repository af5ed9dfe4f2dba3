import { findServer } from './find-server.ts';
import { type RunningServer, givenServer, launch, startOwnServer } from './test-server.ts';

/** A NATS server with JetStream: the one in `TAILRACE_TEST_NATS_URL`, or one of its own. */
export async function startNats(): Promise<RunningServer> {
  const found = await findServer({
    name: 'NATS',
    variable: 'TAILRACE_TEST_NATS_URL',
    program: 'nats-server',
    debianPackage: 'nats-server',
  });
  if ('url' in found) return givenServer(found.url);
  return startOwnServer(async (folder) => {
    const nats = await launch({
      program: found.program,
      args: ['--addr', '127.0.0.1', '--port', '-1', '--jetstream', '--store_dir', folder], // -1: any port that is free
      ready: /Listening for client connections on 127\.0\.0\.1:(\d+)[^]*Server is ready/,
    });
    return { url: `nats://127.0.0.1:${nats.match[1] ?? ''}`, processes: [nats] };
  });
}
