import pg from 'pg';
import { pause } from '../../base/signal.ts';
import { postgresLog } from '../../broker/postgres/index.ts';
import { migrate } from '../../postgres/migrations.ts';
import { listenToPool } from '../../postgres/pool-listener.ts';
import { clientUrl } from '../../postgres/tls.ts';
import { addressOf } from '../database-url.ts';
import { failureOf } from '../explain-error.ts';
import { Crew } from './crew.ts';
import { openDemoDatabase, type DemoDatabase } from './demo-database.ts';
import { showFigures } from './figures.ts';
import { readMeasures } from './measures.ts';
import { OrderPlaced } from './order-placed.ts';
import { OrderServiceRun } from './order-service-run.ts';
import type { Progress } from './progress.ts';
import { readBack } from './read-back.ts';
import type { Run } from './report.ts';
import { createShop } from './shop-tables.ts';

/** Of the topic, to be shared by the members of each group. */
const PARTITIONS = 8;

/** What the user may choose. */
export interface DemoOptions {
  /** How long the writers write, at least. */
  readonly seconds: number;
  /** How many processes place orders. */
  readonly writers: number;
  /** How many orders a second they try to place together. */
  readonly rate: number;
  /** A server of the user's, in place of one that the demo starts. */
  readonly databaseUrl?: string;
  /** Leaves the database to be looked at. */
  readonly keep: boolean;
}

/** Where a demo tells what happens, and how it is stopped before its end. */
export interface DemoStage {
  readonly progress: Progress;
  readonly stop: AbortSignal;
  /** Called with the outcome, while the database is still there. */
  readonly present: (run: Run) => void;
}

/**
 * Runs an order service in processes of its own, kills and switches what carries its events, and reads from the tables what
 * became of them. Everything that was started is ended and removed when it returns or throws.
 *
 * @throws CommandFailure something could not be started, ended by itself, or did not come to an end. The reason of `stop`.
 */
export async function runDemo(options: DemoOptions, stage: DemoStage): Promise<Run> {
  stage.progress.say(options.databaseUrl === undefined ? 'starting a Postgres server' : 'creating a database');
  await using database = await openDemoDatabase(options);
  try {
    const run = await runIn(database, options, stage);
    stage.present(run);
    if (options.keep) await keepOpen(database, stage);
    return run;
  } catch (error) {
    if (stage.stop.aborted) throw error;
    throw failureOf(error, database.url);
  }
}

async function runIn(database: DemoDatabase, options: DemoOptions, { progress, stop }: DemoStage): Promise<Run> {
  await using pool = openPool(database.url);
  await migrate(pool.pool);
  await createShop(pool.pool);
  await createTopic(database.url);
  progress.say(`${await describeServer(pool.pool, database)}: tables created`);
  const run = await runService(database, options, pool.pool, progress, stop);
  progress.say('every process has ended: reading the tables');
  const findings = await readBack(pool.pool);
  const measures = await readMeasures(pool.pool, findings.committed, run.disturbedAtMs);
  return { findings, measures, kills: run.kills, modes: run.modes, marks: run.marks };
}

async function runService(
  database: DemoDatabase,
  options: DemoOptions,
  pool: pg.Pool,
  progress: Progress,
  stop: AbortSignal,
): Promise<OrderServiceRun> {
  await using crew = new Crew();
  const signal = AbortSignal.any([stop, crew.failed]);
  await using _figures = liveFigures(pool, progress, signal);
  const run = new OrderServiceRun({ ...options, databaseUrl: database.url, pool, crew, progress, signal });
  await run.play();
  return run;
}

/** Ahead of its first message, so that consumers know it from the start. */
async function createTopic(connectionString: string): Promise<void> {
  const log = postgresLog({ connectionString });
  try {
    await log.createTopic(OrderPlaced.topic, PARTITIONS);
  } finally {
    await log.close();
  }
}

function openPool(connectionString: string): AsyncDisposable & { readonly pool: pg.Pool } {
  const pool = new pg.Pool({
    connectionString: clientUrl(connectionString),
    max: 3,
    application_name: 'tailrace demo',
  });
  listenToPool(pool); // the next query opens another connection, or tells why it cannot
  return { pool, [Symbol.asyncDispose]: () => pool.end() };
}

function liveFigures(pool: pg.Pool, progress: Progress, signal: AbortSignal): AsyncDisposable {
  const done = new AbortController();
  const shown = showFigures(pool, progress, AbortSignal.any([signal, done.signal])).catch(() => undefined); // the run fails of the same cause
  return {
    [Symbol.asyncDispose]: async () => {
      done.abort();
      await shown;
      progress.end();
    },
  };
}

async function describeServer(pool: pg.Pool, { url, name, isOwnServer }: DemoDatabase): Promise<string> {
  const result = await pool.query<{ server_version: string }>('show server_version');
  const version = result.rows[0]?.server_version.split(' ')[0] ?? '';
  const { server } = addressOf(url);
  return `Postgres ${version} ${isOwnServer ? `in a temporary folder, on ${server}` : `on ${server}, database ${name}`}`;
}

const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** A server of the demo's own goes with it, so it stays for as long as somebody wants to look. */
async function keepOpen({ url, name, isOwnServer }: DemoDatabase, { progress, stop }: DemoStage): Promise<void> {
  if (!isOwnServer) {
    progress.say(`kept: the database ${name} on ${addressOf(url).server}; to remove it: drop database ${name}`);
    return;
  }
  progress.say(`still there, until Ctrl-C: psql ${url}`);
  await pause(LONGEST_TIMER_MS, stop); // its timer keeps the process alive, which a signal's listener does not
}
