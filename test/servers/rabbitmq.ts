import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort } from '../../src/postgres/server-settings.ts';
import { findServer } from './find-server.ts';
import { type RunningServer, givenServer, launch, startOwnServer } from './test-server.ts';

/** A RabbitMQ node: the one in `TAILRACE_TEST_RABBITMQ_URL`, or one of its own, with a port mapper of its own. */
export async function startRabbitMq(): Promise<RunningServer> {
  const found = await findServer({
    name: 'RabbitMQ',
    variable: 'TAILRACE_TEST_RABBITMQ_URL',
    program: 'rabbitmq-server',
    folders: ['/usr/lib/rabbitmq/bin'], // Debian's program on the PATH changes to another user, and to folders of its own
    debianPackage: 'rabbitmq-server',
  });
  if ('url' in found) return givenServer(found.url);
  return startOwnServer(async (folder) => {
    const [port, distributionPort, mapperPort] = await Promise.all([freePort(), freePort(), freePort()]);
    const config = join(folder, 'rabbitmq.conf');
    await writeFile(
      config,
      `listeners.tcp.1 = 127.0.0.1:${String(port)}\nlog.console = true\nlog.console.level = info\n`,
    );
    // Erlang would start a port mapper for the whole machine, which would stay.
    const mapper = await launch({
      program: 'epmd',
      args: ['-d', '-d', '-port', String(mapperPort), '-address', '127.0.0.1'],
      ready: /entering the main select/i,
    });
    try {
      const rabbit = await launch({
        program: found.program,
        args: [],
        env: {
          ERL_EPMD_PORT: String(mapperPort),
          HOME: folder, // holds the cookie
          RABBITMQ_CONFIG_FILE: config,
          RABBITMQ_CONF_ENV_FILE: join(folder, 'none.conf'),
          RABBITMQ_DIST_PORT: String(distributionPort),
          RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'enabled_plugins'),
          RABBITMQ_LOG_BASE: folder,
          RABBITMQ_MNESIA_BASE: join(folder, 'mnesia'),
          RABBITMQ_NODENAME: 'tailrace@localhost',
          RABBITMQ_PID_FILE: join(folder, 'pid'),
          RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
          RUNNING_UNDER_SYSTEMD: '1', // no shell between its process and ours
        },
        ready: /Server startup complete|completed with \d+ plugins/,
      });
      return { url: `amqp://guest:guest@127.0.0.1:${String(port)}`, processes: [rabbit, mapper] };
    } catch (error) {
      await mapper.end();
      throw error;
    }
  });
}
