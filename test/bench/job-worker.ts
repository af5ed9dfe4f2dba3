import { Queue, Worker } from 'bullmq';
import { Logger, makeWorkerUtils, run, type TaskList } from 'graphile-worker';
import pg from 'pg';
import { PgBoss } from 'pg-boss';

/**
 * Handles so many jobs with the same payload and the same row as effect by a job queue, one job at a time in each of 8
 * workers, and prints how long that took; the jobs are there before. Nothing is batched: each job is fetched, handled and
 * completed by itself, as each message is. What is safe without batching is set to be fast.
 */
const { connectionString, messages, who, redisUrl } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
  who: 'pg-boss' | 'graphile-worker' | 'bullmq';
  redisUrl?: string;
};

const AT_ONCE = 8;
const EFFECT = 'insert into effect (customer, quantity) values ($1, $2)';

interface Order {
  readonly customer: string;
  readonly quantity: number;
}

interface Jobs {
  /** Starts to handle. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

const pool = new pg.Pool({ connectionString, max: AT_ONCE });
const all = Promise.withResolvers<undefined>();
let handled = 0;

async function effect({ customer, quantity }: Order): Promise<void> {
  await pool.query(EFFECT, [customer, quantity]);
  if ((handled += 1) === messages) all.resolve(undefined);
}

async function payloads(): Promise<Order[]> {
  const { rows } = await pool.query<{ payload: Order }>(
    'select payload from tailrace.outbox order by position limit $1',
    [messages],
  );
  return rows.map(({ payload }) => payload);
}

/** `work` waits half a second or more between fetches of one job; whoever fetches for himself need not wait. */
async function pgBoss(): Promise<Jobs> {
  const boss = new PgBoss({ connectionString, supervise: false, schedule: false, max: AT_ONCE + 2 });
  boss.on('error', (error) => process.stderr.write(`pg-boss: ${error.message}\n`));
  await boss.start();
  await boss.createQueue('orders', { retryLimit: 0 });
  await boss.deleteAllJobs('orders');
  const orders = await payloads();
  for (let at = 0; at < orders.length; at += 1_000) {
    await boss.insert(
      'orders',
      orders.slice(at, at + 1_000).map((data) => ({ data })),
    );
  }
  return {
    start: async () => {
      const fetchOn = async (): Promise<void> => {
        for (;;) {
          const [job] = await boss.fetch<Order>('orders');
          if (job === undefined) return;
          await effect(job.data);
          await boss.complete('orders', job.id);
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, fetchOn));
    },
    stop: () => boss.stop({ graceful: false }),
  };
}

async function graphileWorker(): Promise<Jobs> {
  const jobPool = new pg.Pool({ connectionString, max: AT_ONCE + 2 });
  const complain = (error: Error): void => void process.stderr.write(`graphile-worker: ${error.message}\n`);
  jobPool.on('error', complain).on('connect', (client) => client.on('error', complain));
  const tasks: TaskList = { order: (payload) => effect(payload as Order) };
  const options = { pgPool: jobPool, noHandleSignals: true, logger: new Logger(() => () => undefined) };
  const utils = await makeWorkerUtils(options);
  await utils.migrate();
  await jobPool.query('truncate graphile_worker._private_jobs');
  const orders = await payloads();
  for (let at = 0; at < orders.length; at += 1_000) {
    await utils.addJobs(orders.slice(at, at + 1_000).map((payload) => ({ identifier: 'order', payload })));
  }
  await utils.release();
  let runner: Awaited<ReturnType<typeof run>> | undefined;
  return {
    start: async () => {
      runner = await run({ ...options, concurrency: AT_ONCE, taskList: tasks });
    },
    stop: async () => {
      await runner?.stop();
      await jobPool.end();
    },
  };
}

async function bullmq(): Promise<Jobs> {
  const connection = { url: redisUrl ?? '' };
  const queue = new Queue('orders', { connection });
  await queue.obliterate({ force: true });
  const orders = await payloads();
  for (let at = 0; at < orders.length; at += 1_000) {
    const some = orders.slice(at, at + 1_000);
    await queue.addBulk(some.map((data) => ({ name: 'order', data, opts: { removeOnComplete: true } })));
  }
  await queue.close();
  const worker = new Worker<Order>('orders', ({ data }) => effect(data), {
    connection: { ...connection, maxRetriesPerRequest: null },
    concurrency: AT_ONCE,
    autorun: false,
  });
  worker.on('error', (error) => process.stderr.write(`bullmq: ${error.message}\n`));
  await worker.waitUntilReady();
  return {
    start: () => {
      void worker.run();
      return Promise.resolve();
    },
    stop: () => worker.close(),
  };
}

const JOBS = { 'pg-boss': pgBoss, 'graphile-worker': graphileWorker, bullmq };
const jobs = await JOBS[who]();
await pool.query('checkpoint');
const cpu = process.cpuUsage();
const startedAt = performance.now();
await jobs.start();
await all.promise;
const seconds = (performance.now() - startedAt) / 1_000;
const { user, system } = process.cpuUsage(cpu);
process.stdout.write(`${JSON.stringify({ seconds, cpuMicros: Math.round((user + system) / messages) })}\n`);
await jobs.stop();
await pool.end();
process.exit();
