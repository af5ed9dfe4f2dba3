import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { TailraceError } from '../base/errors.ts';

/** Settings of `postgresql.conf`, by name. */
export type ServerSettings = Readonly<Record<string, string | number | boolean>>;

/**
 * What a local server needs beyond Postgres' own defaults: logical replication, nothing that is reachable from outside, and
 * shared memory in files of the data folder, which leave with it even if the server was killed.
 */
export const DEFAULT_SETTINGS: ServerSettings = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  dynamic_shared_memory_type: 'mmap',
  wal_level: 'logical',
  max_wal_senders: '20',
  max_replication_slots: '20',
  timezone: 'UTC',
  log_timezone: 'UTC',
};

/**
 * The lines of a settings file.
 *
 * @throws TailraceError `INVALID_OPTION`: not the name of a setting, or a value of none of these types.
 */
export function formatSettings(settings: ServerSettings): string {
  return Object.entries(settings)
    .map(([name, value]) => `${checkedName(name)} = '${escaped(textOf(name, value))}'\n`)
    .join('');
}

function checkedName(name: string): string {
  if (/^[A-Za-z_][A-Za-z0-9_.]*$/.test(name)) return name;
  throw new TailraceError(
    'INVALID_OPTION',
    `Not the name of a Postgres setting: ${JSON.stringify(name)}. Expected letters, digits, underscores and dots, such as max_connections.`,
  );
}

function textOf(name: string, value: unknown): string {
  if (typeof value === 'string' || typeof value === 'boolean' || Number.isFinite(value)) return String(value);
  throw new TailraceError(
    'INVALID_OPTION',
    `The setting ${name} is ${typeof value === 'number' ? value : typeof value}. Expected text, a finite number, true or false.`,
  );
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll("'", "''").replaceAll('\n', '\\n');
}

const LOWEST_PORT = 15_000;
const HIGHEST_PORT = 32_000;

/**
 * A loopback port that is free now. It lies below the range from which Linux and macOS take the local ports of outgoing
 * connections: a client that keeps trying a stopped server in that range can end up connected to itself, and then the
 * server cannot come back on its port.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries += 1) {
    const port = randomInt(LOWEST_PORT, HIGHEST_PORT);
    if (await isFree(port)) return port;
  }
  throw new TailraceError(
    'SERVER_START_FAILED',
    `No free port on 127.0.0.1: tried 100 between ${LOWEST_PORT} and ${HIGHEST_PORT}. Name one in the option port.`,
  );
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => {
      resolve(false);
    });
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}
