import pg from 'pg';
import { messageOf } from '../../src/base/errors.ts';
import { pause } from '../../src/base/signal.ts';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer, type Consumer, type HandlerContext } from '../../src/consumer/index.ts';
import { listenToPool } from '../../src/postgres/pool-listener.ts';
import { isTransient } from '../../src/postgres/sqlstate.ts';
import { FailPoints } from './fail-points.ts';
import { GROUPS, type Group } from './groups.ts';
import { History, historyLogger } from './history.ts';
import { linkToParent, stopRequested, work } from './parent-link.ts';
import { sabotagedDatabase, sabotagedReading, type SabotageName } from './sabotage/sabotage.ts';
import { Stepped } from './stepped.ts';
import { POISON_DEATHS, POISON_KEY, type Step } from './tables.ts';
import { watchStatements } from './watched-statements.ts';

/** Asks a consumer to write down what it is doing. */
export interface StatusRequest {
  readonly ask: 'status';
}

/** What a consumer is told. */
export interface ConsumerSettings {
  readonly name: string;
  /** Of the log. */
  readonly databaseUrl: string;
  /** Of what the handlers write. */
  readonly handlersUrl: string;
  readonly historyPath: string;
  readonly leaseMs: number;
  readonly sabotage: SabotageName | undefined;
  /** Eight members in place of one of each group; one after the other leaves, and another one joins. */
  readonly isRestless: boolean;
}

/** Names keys whose messages the handlers of the group `single` refuse from now on. */
export interface FailingKeys {
  readonly failing: readonly string[];
}

const CONCURRENCY = 6;
/** So that a key of which there is much in one transaction does not hold up the others of its partition. */
const PREFETCH_RECORDS = 32_000;
const RESTLESS_MEMBERS = 8;
const RESTLESS_EVERY_MS = 300;
/** For so long a start that fails is tried again. */
const START_PATIENCE_MS = 60_000;
const START_AGAIN_MS = 250;
/** More than poison takes. What fails for longer is parked, and is tried again soon, as long as the run goes on. */
const RETRIES = {
  attempts: POISON_DEATHS,
  delayed: { delaysMs: Array.from({ length: 10_000 }, () => 250) },
};

const parent = linkToParent<ConsumerSettings>();
await work(() => consume(parent.settings));

/** Runs members of the groups until it is told to stop. */
async function consume(settings: ConsumerSettings): Promise<void> {
  const { name, databaseUrl, handlersUrl, historyPath, leaseMs, sabotage, isRestless } = settings;
  const history = new History(historyPath, name);
  const points = new FailPoints(history);
  watchStatements(points);
  const concurrency = isRestless ? 1 : CONCURRENCY;
  const members = isRestless ? RESTLESS_MEMBERS : GROUPS.length;
  const database = new pg.Pool({
    connectionString: handlersUrl,
    max: members * (concurrency + 2),
    application_name: name,
  });
  listenToPool(database);
  const log = postgresLog({ connectionString: databaseUrl });
  const reading = sabotagedReading(log, sabotage, databaseUrl);
  const working = sabotagedDatabase(database, sabotage);
  let failing: readonly string[] = [];

  const effect = async ({ tx, record }: HandlerContext, group: Group, steps: readonly Step[]): Promise<void> => {
    points.reach('handler.before');
    await tx.query(
      `insert into torture.effect (group_name, partition, id, k, n)
         select $1, $2, * from unnest($3::bigint[], $4::text[], $5::bigint[])`,
      [group, record.partition, steps.map(({ id }) => id), steps.map(({ k }) => k), steps.map(({ n }) => n)],
    );
    points.reach('handler.after');
  };
  const dieOf = async ({ id }: Step, { tx, attempt }: HandlerContext): Promise<void> => {
    const { rowCount } = await database.query(
      'update torture.poison set deaths = deaths + 1 where id = $1 and deaths < $2',
      [id, POISON_DEATHS],
    );
    if (rowCount === 1) process.kill(process.pid, 'SIGKILL');
    await tx.query('update torture.poison set attempt = $2 where id = $1', [id, attempt]);
  };
  const join = async (group: Group, memberId: string): Promise<Consumer> => {
    const options = { log: reading, database: working, leaseMs, concurrency, logger: historyLogger(history) };
    const consumer = createConsumer({
      ...options,
      group,
      memberId,
      retries: RETRIES,
      prefetch: { records: PREFETCH_RECORDS },
    });
    if (group === 'batch') {
      consumer.onBatch(Stepped, (events, context) => {
        return effect(
          context,
          group,
          events.map(({ payload }) => payload),
        );
      });
    } else {
      consumer.on(Stepped, async ({ payload }, context) => {
        if (failing.includes(payload.k)) throw new Error(`${payload.k} is refused.`);
        if (payload.k === POISON_KEY) await dieOf(payload, context);
        await effect(context, group, [payload]);
      });
    }
    await superviseStart(consumer, history, parent.stopping);
    return consumer;
  };

  history.write('start', 'info', { pid: process.pid });
  const consumers = await Promise.all(
    Array.from({ length: members }, (_, n) =>
      join(GROUPS[n % GROUPS.length] ?? 'single', isRestless ? `${name}-${n}` : name),
    ),
  );
  parent.onMessage((message) => {
    if (isFailingKeys(message)) failing = message.failing;
    else if (isStatusRequest(message))
      for (const consumer of consumers) history.write('status', 'info', shown(consumer));
    else points.onMessage(message);
  });
  parent.ready();
  if (isRestless) await changeMembers(consumers, (group, n) => join(group, `${name}-${n}`));
  else await stopRequested(parent.stopping);
  await Promise.all(consumers.map((consumer) => consumer.stop()));
  await log.close();
  await database.end();
  history.write('stop', 'info');
}

/** Starts it, and again while what keeps it from that may pass: as a supervisor would a process that ended over it. */
async function superviseStart(consumer: Consumer, history: History, stopping: AbortSignal): Promise<void> {
  const deadline = performance.now() + START_PATIENCE_MS;
  for (;;) {
    try {
      await consumer.start();
      return;
    } catch (error) {
      history.write('start', 'fail', { error: messageOf(error) });
      if (!isTransient(error) || stopping.aborted || performance.now() > deadline) throw error;
      await pause(START_AGAIN_MS, stopping);
    }
  }
}

/** Until it is told to stop, the oldest member leaves and another one joins its group. */
async function changeMembers(
  consumers: Consumer[],
  join: (group: Group, n: number) => Promise<Consumer>,
): Promise<void> {
  for (let n = consumers.length; !parent.stopping.aborted; n += 1) {
    await pause(RESTLESS_EVERY_MS, parent.stopping);
    await consumers.shift()?.stop();
    consumers.push(await join(GROUPS[n % GROUPS.length] ?? 'single', n));
  }
}

function isFailingKeys(message: unknown): message is FailingKeys {
  return typeof message === 'object' && message !== null && 'failing' in message;
}

function isStatusRequest(message: unknown): message is StatusRequest {
  return typeof message === 'object' && message !== null && 'ask' in message;
}

function shown(consumer: Consumer): object {
  return JSON.parse(
    JSON.stringify(consumer.status(), (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value)),
  ) as object;
}
