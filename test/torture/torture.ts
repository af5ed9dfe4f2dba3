import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { messageOf } from '../../src/base/errors.ts';
import { pause } from '../../src/base/signal.ts';
import { migrate } from '../../src/postgres/migrations.ts';
import { listenToPool } from '../../src/postgres/pool-listener.ts';
import type { PostgresVersion } from '../servers/find-postgres.ts';
import { check, type Evidence } from './checker.ts';
import { TortureCluster } from './cluster.ts';
import { Database } from './database.ts';
import { drain } from './drain.ts';
import { readDatabase, readProcesses } from './evidence.ts';
import type { Fault } from './fault.ts';
import { makeRunFolder, type RunFolder } from './folder.ts';
import { History } from './history.ts';
import { Nemesis, planOf } from './nemesis.ts';
import { Pacer } from './pacer.ts';
import { Probe } from './probe.ts';
import { Random } from './random.ts';
import { reportOf, type TortureReport } from './report.ts';
import { sabotageOf, type SabotageName } from './sabotage/sabotage.ts';
import { SlotWatch } from './slot-watch.ts';
import { ServerWatch } from './server-watch.ts';
import { Stage } from './stage.ts';
import { BULK_KEY, createTables, FREE_KEYS } from './tables.ts';

export interface TortureOptions {
  readonly seed: number;
  /** How long messages are written and faults injected. Without it: until every fault was injected once. */
  readonly seconds: number | undefined;
  readonly faults: readonly Fault[];
  readonly sabotage: SabotageName | undefined;
  readonly version: PostgresVersion;
  readonly perSecond: number;
  /** How long a message committed after a fault may take to have its effect. Without it: as long as something moves. */
  readonly recoveryLimitMs: number | undefined;
  /** Where to leave the history. */
  readonly historyPath: string | undefined;
  readonly say: (text: string) => void;
  readonly stop: AbortSignal;
}

const MEMORY_LIMIT_MIB = 256;
const RETAINED_WAL_LIMIT_BYTES = 1024 ** 3;
/** Of two consumers with six handlers at once in each group, of which one gets 500 messages at a time. */
const MOST_IN_FLIGHT = 2 * 6 * (1 + 500);
/** How long nothing may move before it counts as a stall. What is wrong on purpose stalls for good, and need not be waited for. */
const PATIENCE_MS = 60_000;
const SABOTAGED_PATIENCE_MS = 20_000;
/** Nothing is broken for so long at first, in parts of the whole. */
const CLEAN_PART = 0.05;

/** Runs it all: clean, faults, heal, restart, drain, read back, check. Leaves nothing behind, however it ends. */
export async function torture(options: TortureOptions): Promise<TortureReport> {
  await using folder = await makeRunFolder(options.faults.some(({ wantsDisk }) => wantsDisk === true));
  const historyPath = join(folder.path, 'history.ndjson');
  try {
    return await runIn(folder, historyPath, options);
  } finally {
    if (options.historyPath !== undefined) {
      await copyFile(historyPath, options.historyPath).catch((error: unknown) => {
        options.say(`the history could not be kept: ${messageOf(error)}`);
      });
    }
  }
}

async function runIn(folder: RunFolder, historyPath: string, options: TortureOptions): Promise<TortureReport> {
  const { seed, sabotage, perSecond, stop, say } = options;
  say(`seed ${seed}, Postgres ${options.version}${sabotage === undefined ? '' : `, sabotage ${sabotage}`}`);
  const history = new History(historyPath, 'nemesis');
  history.write('run', 'info', { seed, sabotage });
  await using cluster = await TortureCluster.start(options.version, folder.disk ?? folder.path);
  for (const { prepare: prepareCluster } of options.faults) await prepareCluster?.(cluster);
  await using database = new Database(cluster.url);
  await migrateAt(cluster.url);
  await using others = new AsyncDisposableStack();
  const handlers = options.faults.some(({ wantsHandlersServer }) => wantsHandlersServer === true)
    ? await startHandlers(options.version, folder, others)
    : undefined;
  await createTables(database, handlers?.database ?? database);
  await using stage = new Stage({
    cluster,
    database,
    handlers,
    history,
    historyPath,
    seed,
    sabotage,
    perSecond,
    disk: folder.disk,
    stop,
  });
  await stage.openNetworks();
  const patienceMs = sabotage === undefined ? PATIENCE_MS : SABOTAGED_PATIENCE_MS;
  const probe = new Probe(database, stage.handlers, patienceMs, stop);
  const slotWatch = new SlotWatch(() => cluster.url);
  const pacer = new Pacer(stage);
  // A sabotage that has made things stand still is there to be read.
  const isDecided = (): boolean => sabotage !== undefined && stage.stalls.length > 0;
  const nemesis = new Nemesis({ stage, probe, random: new Random(seed, 'nemesis'), say, isDecided });
  const serverWatch = new ServerWatch(database, () => nemesis.calmSinceMs);
  try {
    await play(options, stage, probe, nemesis, isDecided);
    say('stopping the writers, restarting every relay and consumer, waiting for the last messages');
    await pacer.stop();
    await stage.stopWriters();
    await stage.restartReaders();
    const drained = await drain({ database, handlers: stage.handlers, patienceMs, stop });
    stop.throwIfAborted();
    stage.watchMemory();
    await slotWatch.stop();
    await serverWatch.stop();
    await stage.stopReaders();
    const evidence = {
      ...(await gather(stage, slotWatch, drained, historyPath)),
      server: serverWatch.samples,
      retainedWalLimitBytes: RETAINED_WAL_LIMIT_BYTES,
      redeliveredLimit: await mostRedelivered(stage, nemesis),
    };
    return reportOf(options, evidence, check(evidence), nemesis);
  } finally {
    await pacer.stop();
    await slotWatch.stop();
    await serverWatch.stop();
    history.close();
  }
}

async function migrateAt(url: string): Promise<void> {
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  listenToPool(pool);
  try {
    await migrate(pool);
  } finally {
    await pool.end();
  }
}

/** A server for what the consumers' handlers write. */
async function startHandlers(
  version: PostgresVersion,
  folder: RunFolder,
  kept: AsyncDisposableStack,
): Promise<{ readonly cluster: TortureCluster; readonly database: Database }> {
  const cluster = kept.use(await TortureCluster.start(version, folder.path, 'handlers'));
  const database = kept.use(new Database(cluster.url));
  await migrateAt(cluster.url);
  return { cluster, database };
}

async function play(
  options: TortureOptions,
  stage: Stage,
  probe: Probe,
  nemesis: Nemesis,
  isDecided: () => boolean,
): Promise<void> {
  const { seconds, faults, say, stop, seed, sabotage } = options;
  const needs = sabotage === undefined ? [] : sabotageOf(sabotage).needs;
  const available = await nemesis.available(faults); // what has to be installed for some takes its time
  await stage.startAll();
  if ((await probe.arrive()) === undefined) throw new Error('The first message never arrived.');
  const startedMs = performance.now();
  say('messages flow');
  await pause((seconds ?? 60) * 1_000 * CLEAN_PART, stop);
  const endMs = seconds === undefined ? undefined : startedMs + seconds * 1_000;
  await nemesis.run(planOf(available, new Random(seed, 'plan'), needs), endMs, 2 * needs.length);
  if (endMs !== undefined && !isDecided()) await pause(Math.max(0, endMs - performance.now()), stop);
  stop.throwIfAborted();
}

/** What is in flight in all groups, each time that a fault or a new owner can have interrupted it. */
async function mostRedelivered(stage: Stage, { reports }: Nemesis): Promise<number> {
  const faults = Object.values(reports).reduce((sum, { injected }) => sum + injected, 0);
  return MOST_IN_FLIGHT * ((await stage.owners()) + faults);
}

async function gather(
  stage: Stage,
  slotWatch: SlotWatch,
  drained: boolean,
  historyPath: string,
): Promise<Omit<Evidence, 'server' | 'retainedWalLimitBytes' | 'redeliveredLimit'>> {
  const { attempts, refused, failedOver } = await readProcesses(historyPath);
  return {
    ...(await readDatabase(stage.database, stage.handlers)),
    undone: stage.hasOwnHandlers ? failedOver : [],
    attempts,
    refused,
    earlyAcknowledgements: slotWatch.found,
    memoryMiB: stage.peakMemoryMiB,
    memoryLimitMiB: MEMORY_LIMIT_MIB,
    drained,
    collapses: stage.collapses,
    stalls: stage.stalls,
    dangers: stage.dangers,
    phantoms: stage.phantoms,
    forbiddenPhantoms: stage.forbiddenPhantoms,
    unorderedKeys: new Set(FREE_KEYS),
    unreadKeys: new Set([BULK_KEY]),
  };
}
