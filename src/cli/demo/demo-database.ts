import { randomBytes } from 'node:crypto';
import { closeClient, openClient } from '../../postgres/connection.ts';
import { startLocalServer } from '../../postgres/local-server.ts';
import { addressOf } from '../database-url.ts';
import { failureOf } from '../explain-error.ts';
import { CommandFailure } from '../failure.ts';
import { ChildService } from './child-service.ts';
import { settingsEnv } from './parent-link.ts';
import { waitUntil } from './wait-until.ts';

/** An empty database for one run. Dispose removes it and whatever was started for it. */
export interface DemoDatabase extends AsyncDisposable {
  readonly url: string;
  /** Whether it goes with this process, or is in a server of the user's. */
  readonly isOwnServer: boolean;
  readonly name: string;
}

export interface DemoDatabaseOptions {
  /** A server of the user's. Without it a server is started in a temporary folder. */
  readonly databaseUrl?: string;
  /** Leaves the database in the user's server. */
  readonly keep: boolean;
}

/** Makes the database that a run works in. */
export async function openDemoDatabase({ databaseUrl, keep }: DemoDatabaseOptions): Promise<DemoDatabase> {
  return databaseUrl === undefined ? onOwnServer() : onServer(databaseUrl, keep);
}

async function onOwnServer(): Promise<DemoDatabase> {
  const server = await startLocalServer({ settings: { max_connections: '200' } });
  const name = 'tailrace_demo';
  try {
    await createDatabase(server.connectionString, name);
  } catch (error) {
    await server.stop();
    throw error;
  }
  const url = withDatabase(server.connectionString, name);
  return { url, name, isOwnServer: true, [Symbol.asyncDispose]: () => server.stop() };
}

const START_TIMEOUT_MS = 30_000;

/** The janitor is there before the database is: whatever becomes of this process, nothing is left behind. */
async function onServer(adminUrl: string, keep: boolean): Promise<DemoDatabase> {
  const name = `tailrace_demo_${randomBytes(4).toString('hex')}`;
  const collapse = new AbortController();
  const janitor = new ChildService({
    name: 'janitor',
    program: './janitor-process',
    env: settingsEnv({ adminUrl, database: name, keep }),
    onCollapse: ({ lastWords }) => {
      collapse.abort(new CommandFailure(`The demo's janitor ended by itself (${lastWords}).`));
    },
  });
  try {
    const failure = "The demo's janitor is not ready";
    await waitUntil(() => janitor.isReady, { signal: collapse.signal, timeoutMs: START_TIMEOUT_MS, failure });
    await createDatabase(adminUrl, name);
  } catch (error) {
    await janitor.leave();
    throw failureOf(error, adminUrl);
  }
  const dispose = async (): Promise<void> => {
    if (await janitor.leave()) return;
    throw new CommandFailure(
      `The demo's database ${name} on ${addressOf(adminUrl).server} could not be cleaned up (${janitor.lastWords}). Drop its replication slots and the database by hand.`,
    );
  };
  return { url: withDatabase(adminUrl, name), name, isOwnServer: false, [Symbol.asyncDispose]: dispose };
}

async function createDatabase(adminUrl: string, name: string): Promise<void> {
  const admin = await openClient({ connectionString: adminUrl, applicationName: 'tailrace demo' });
  try {
    await admin.query(`create database ${name}`);
  } finally {
    await closeClient(admin);
  }
}

/** The same server and user, another database. */
function withDatabase(url: string, database: string): string {
  return url.replace(/^([a-z]+:\/\/[^/?]*)(?:\/[^?]*)?/i, `$1/${database}`);
}
