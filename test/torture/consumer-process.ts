import pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer, type Consumer, type HandlerContext } from '../../src/consumer/index.ts';
import { FailPoints } from './fail-points.ts';
import type { Group } from './groups.ts';
import { History, historyLogger } from './history.ts';
import { linkToParent, stopRequested, work } from './parent-link.ts';
import { sabotagedDatabase, sabotagedReading, type SabotageName } from './sabotage/sabotage.ts';
import { Stepped } from './stepped.ts';
import type { Step } from './tables.ts';
import { watchStatements } from './watched-statements.ts';

/** Asks a consumer to write down what it is doing. */
export interface StatusRequest {
  readonly ask: 'status';
}

/** What a consumer is told. */
export interface ConsumerSettings {
  readonly name: string;
  readonly databaseUrl: string;
  readonly historyPath: string;
  readonly leaseMs: number;
  readonly sabotage: SabotageName | undefined;
}

const CONCURRENCY = 6;

const parent = linkToParent<ConsumerSettings>();
await work(() => consume(parent.settings));

/** Runs a member of each group until it is told to stop. */
async function consume({ name, databaseUrl, historyPath, leaseMs, sabotage }: ConsumerSettings): Promise<void> {
  const history = new History(historyPath, name);
  const points = new FailPoints(history);
  watchStatements(points);
  const database = new pg.Pool({ connectionString: databaseUrl, max: 2 * (CONCURRENCY + 2), application_name: name });
  database.on('error', () => undefined); // an idle connection was lost: the next one is another
  const log = postgresLog({ connectionString: databaseUrl });
  const reading = sabotagedReading(log, sabotage, databaseUrl);
  const working = sabotagedDatabase(database, sabotage);
  const member = (group: Group): Consumer =>
    createConsumer({
      log: reading,
      group,
      database: working,
      memberId: name,
      leaseMs,
      concurrency: CONCURRENCY,
      logger: historyLogger(history),
    });

  const effect = async ({ tx, record }: HandlerContext, group: Group, steps: readonly Step[]): Promise<void> => {
    points.reach('handler.before');
    await tx.query(
      `insert into torture.effect (group_name, partition, id, k, n)
         select $1, $2, * from unnest($3::bigint[], $4::text[], $5::bigint[])`,
      [group, record.partition, steps.map(({ id }) => id), steps.map(({ k }) => k), steps.map(({ n }) => n)],
    );
    points.reach('handler.after');
  };
  const single = member('single').on(Stepped, ({ payload }, context) => effect(context, 'single', [payload]));
  const batch = member('batch').onBatch(Stepped, (events, context) => {
    return effect(
      context,
      'batch',
      events.map(({ payload }) => payload),
    );
  });

  parent.onMessage((message) => {
    if (isStatusRequest(message))
      for (const consumer of [single, batch]) history.write('status', 'info', shown(consumer));
    else points.onMessage(message);
  });
  history.write('start', 'info', { pid: process.pid });
  await Promise.all([single.start(), batch.start()]);
  parent.ready();
  await stopRequested(parent.stopping);
  await Promise.all([single.stop(), batch.stop()]);
  await log.close();
  await database.end();
  history.write('stop', 'info');
}

function isStatusRequest(message: unknown): message is StatusRequest {
  return typeof message === 'object' && message !== null && 'ask' in message;
}

function shown(consumer: Consumer): object {
  return JSON.parse(
    JSON.stringify(consumer.status(), (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value)),
  ) as object;
}
