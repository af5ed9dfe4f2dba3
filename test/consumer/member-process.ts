// One member of a group as a process of its own, for tests that kill or stop it. Takes its options as JSON. Writes to
// stdout a JSON line for each thing that it logs, and {"inside": n} when it is inside the transaction where it pauses.
import pg from 'pg';
import type { Logger } from '../../src/base/logger.ts';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer, type BatchHandler, type Handler } from '../../src/consumer/index.ts';
import { addEffect, Counted, type Count } from './counted.ts';
import { openPool } from '../servers/pool.ts';

/** What the process is told. */
export interface MemberOptions {
  readonly connectionString: string;
  readonly memberId: string;
  readonly leaseMs: number;
  /**
   * At so many messages of one key the handler waits, once, with its effect written, until it is told that its partition is
   * lost, or this process ends.
   */
  readonly pauseAt?: number;
  /** Whether it stops, and closes what it has opened, after its first message. */
  readonly stopsAfterOne?: boolean;
  /** The process ends, as by `kill -9`, under the handler of this number of the key `a`. */
  readonly diesAt?: number;
  /** Whether its handler takes many messages at a time; then it neither pauses nor stops. */
  readonly inBatches?: boolean;
  /** Whether it stores messages before it handles them. */
  readonly storesFirst?: boolean;
  /** @defaultValue that of consumers */
  readonly attempts?: number;
  readonly mode?: 'work-queue';
}

const options = JSON.parse(process.argv[2] ?? '') as MemberOptions;
const { connectionString, memberId, leaseMs, pauseAt, diesAt, attempts, mode } = options;

const say = (what: object): void => void process.stdout.write(`${JSON.stringify(what)}\n`);
const log = (fields: object, message: string): void => say({ ...fields, message });
const logger: Logger = { debug: log, info: log, warn: log, error: log };

const pool = openPool({ connectionString });
const homeLog = postgresLog({ connectionString });
const handledOne = Promise.withResolvers<undefined>();
const begun = new Map<string, number>();
let hasPaused = false;
const consumer = createConsumer({
  log: homeLog,
  group: 'counting',
  database: pool,
  memberId,
  leaseMs,
  concurrency: 4,
  heartbeatMs: 50,
  cursorIntervalMs: 50,
  logger,
  ...(options.storesFirst === true && { delivery: 'store-first' as const }),
  ...(attempts !== undefined && { retries: { attempts } }),
  ...(mode !== undefined && { mode }),
});
const effect = async (tx: pg.ClientBase, payload: Count): Promise<void> => {
  await addEffect(tx, payload, memberId);
  if (payload.key === 'a' && payload.n === diesAt) process.kill(process.pid, 'SIGKILL');
};
const handleOne: Handler<Count> = async ({ payload }, { tx, signal }) => {
  await effect(tx, payload);
  handledOne.resolve(undefined);
  const times = (begun.get(payload.key) ?? 0) + 1;
  begun.set(payload.key, times);
  if (times !== pauseAt || hasPaused) return;
  hasPaused = true;
  say({ inside: payload.n });
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
};
const handleMany: BatchHandler<Count> = async (events, { tx }) => {
  for (const { payload } of events) await effect(tx, payload);
};
if (options.inBatches === true) consumer.onBatch(Counted, handleMany);
else consumer.on(Counted, handleOne);
await consumer.start();
say({ started: memberId });
if (options.stopsAfterOne === true) {
  await handledOne.promise;
  await consumer.stop();
  await homeLog.close();
  await pool.end(); // from here on nothing may keep the process alive
}
