import pg from 'pg';
import { describe, expect, inject, it, vi } from 'vitest';
import { silentLogger } from '../../src/base/logger.ts';
import { openMaintenanceClient } from '../../src/broker/postgres/maintenance/maintenance.ts';
import { maintain } from '../../src/broker/postgres/maintenance/round.ts';
import { createConsumer } from '../../src/consumer/consumer.ts';
import { defineEvent } from '../../src/message/definition.ts';
import {
  startTestPipeline,
  type TestEnvironment,
  type TestPipeline,
  type TestPipelineOptions,
} from '../../src/testing/test-pipeline.ts';

interface Counted {
  readonly key: string;
  readonly n: number;
}

const Counted = defineEvent<Counted>('Counted', { topic: 'counts', key: ({ key }) => key });
const Followed = defineEvent<Counted>('Followed', { topic: 'follow-ups', key: ({ key }) => key });

const { adminUrl } = inject('testServer');
const patient = { timeout: 60_000, interval: 20 };
const patiently = { timeoutMs: 100_000 };

async function start(options: TestPipelineOptions = {}): Promise<TestPipeline> {
  const pipeline = await startTestPipeline({ connectionString: adminUrl, ...options });
  await pipeline.pool.query('create table effect (grp text, key text, n int)');
  return pipeline;
}

/** A consumer that writes down what it sees. */
function recording(environment: TestEnvironment, group = 'recording') {
  return environment.consumer(group).on(Counted, async ({ payload: { key, n } }, { tx }) => {
    await tx.query('insert into effect values ($1, $2, $3)', [group, key, n]);
  });
}

async function effects({ pool }: TestPipeline, group = 'recording'): Promise<number> {
  const { rows } = await pool.query<{ count: number }>('select count(*)::int from effect where grp = $1', [group]);
  return rows[0]?.count ?? -1;
}

function counted(count: number, keys = 5) {
  return Array.from({ length: count }, (_, n) => Counted({ key: `k${n % keys}`, n }));
}

/** Something that a handler waits for, and something that says that it does. */
function gate() {
  const entered = Promise.withResolvers<undefined>();
  const opened = Promise.withResolvers<undefined>();
  const pass = async (): Promise<void> => {
    entered.resolve(undefined);
    await opened.promise;
  };
  return { entered: entered.promise, open: () => opened.resolve(undefined), pass };
}

describe.each(['wal', 'polling'] as const)('a test pipeline in mode %s', (mode) => {
  it('has everything handled once drained', async () => {
    await using pipeline = await start({ mode, consumers: (env) => [recording(env), recording(env, 'other')] });
    for (let round = 1; round <= 3; round++) {
      await Promise.all(Array.from({ length: 4 }, () => pipeline.publish(counted(10))));
      await pipeline.drained(patiently);
      expect(await effects(pipeline)).toBe(round * 40);
      expect(await effects(pipeline, 'other')).toBe(round * 40);
    }
    expect(pipeline.relay.status()).toMatchObject({ state: 'leading', appended: 120 });
  });

  it('reads the outbox as it was told', async () => {
    await using pipeline = await start({ mode });
    const mode_ = (): string | undefined => pipeline.relay.status().source?.mode;
    await expect.poll(mode_, patient).toBe(mode);
  });
});

describe('drained', () => {
  it('resolves in an empty pipeline', async () => {
    await using pipeline = await start();
    await pipeline.drained(patiently);
  });

  it('follows messages into a topic that is compacted', async () => {
    await using pipeline = await start();
    await pipeline.log.createTopic('counts', 1, { compact: true, minCompactionLagMs: 0 });
    await pipeline.publish(counted(10, 2));
    await pipeline.drained(patiently);
    await pipeline.pool.query(`update tailrace.relay_batch set checkpoint = pg_current_snapshot()::text || ' '`);
    const client = await openMaintenanceClient(pipeline.connectionString);
    const round = { schema: 'tailrace', holder: 'test', keepOutboxMs: 86_400_000, logger: silentLogger };
    await expect
      .poll(async () => {
        await maintain(client, round);
        return (await pipeline.log.fetch([{ topic: 'counts', partition: 0, offset: 0n }])).length;
      }, patient)
      .toBe(2); // the relay looks after the log too
    await client.end();
    await recording(pipeline).start();
    await pipeline.drained(patiently);
    expect(await effects(pipeline)).toBe(2);
    await pipeline.publish(counted(1, 2));
    await pipeline.drained(patiently);
    expect(await effects(pipeline)).toBe(3);
  });

  it('waits for a handler that runs', async () => {
    await using pipeline = await start();
    const handler = gate();
    const consumer = pipeline.consumer('slow').on(Counted, () => handler.pass());
    await consumer.start();
    await pipeline.publish(counted(1));
    await handler.entered;
    let isDrained = false;
    const drained = pipeline.drained(patiently).then(() => (isDrained = true));
    await expect(pipeline.drained({ timeoutMs: 100 })).rejects.toMatchObject({ code: 'TIMEOUT' });
    expect(isDrained).toBe(false);
    handler.open();
    await drained;
    expect(consumer.status().handled).toBe(1);
  });

  it('waits for what was committed before the call, and for nothing else', async () => {
    await using pipeline = await start();
    const [first, second] = [gate(), gate()];
    const consumer = pipeline
      .consumer('chain')
      .on(Counted, async ({ payload }, { tx }) => {
        await first.pass();
        await pipeline.outbox.publish(tx, Followed(payload));
      })
      .on(Followed, () => second.pass());
    await consumer.start();
    await pipeline.publish(counted(1));
    await first.entered;
    const queries = vi.spyOn(pipeline.pool, 'query');
    const drained = pipeline.drained(patiently);
    await vi.waitUntil(() => queries.mock.results.length > 0, { timeout: 60_000 });
    await queries.mock.results[0]?.value; // the one that drained begins with
    first.open();
    await second.entered;
    await drained;
    await expect(pipeline.drained({ timeoutMs: 100 })).rejects.toMatchObject({
      code: 'TIMEOUT',
      retryable: true,
      message: expect.stringContaining('Not handled by group chain: 1 (running, handlers running: 1)'),
      details: { notInLog: 0, behind: { chain: 1 }, deadLetters: 0 },
    });
    second.open();
    await pipeline.drained(patiently);
  });

  it('waits for nothing that was rolled back', async () => {
    await using pipeline = await start({ consumers: (env) => [recording(env)] });
    const client = await pipeline.pool.connect();
    await client.query('begin');
    await pipeline.outbox.publish(client, counted(3));
    await client.query('rollback');
    client.release();
    await pipeline.publish(counted(1));
    await pipeline.drained(patiently);
    expect(await effects(pipeline)).toBe(1);
  });

  it('waits for groups that the pipeline did not make', async () => {
    await using pipeline = await start();
    const { log, pool } = pipeline;
    await using consumer = createConsumer({ log, group: 'own', database: pool, cursorIntervalMs: 200 }).on(
      Counted,
      ({ payload: { n } }, { tx }) => tx.query(`insert into effect values ('own', '', $1)`, [n]),
    );
    await consumer.start();
    await pipeline.publish(counted(20));
    await pipeline.drained(patiently);
    expect(await effects(pipeline, 'own')).toBe(20);
  });

  it('counts what several members of a group have done', async () => {
    await using pipeline = await start({ consumers: (env) => [recording(env), recording(env), recording(env)] });
    await pipeline.publish(counted(60, 30));
    await pipeline.drained(patiently);
    expect(await effects(pipeline)).toBe(60);
  });

  it('passes over types that nobody handles, and waits for late joiners', async () => {
    await using pipeline = await start({ consumers: (env) => [recording(env)] });
    await pipeline.publish(Followed({ key: 'a', n: 1 }));
    await pipeline.drained(patiently);
    await pipeline.publish(counted(7));
    const late = recording(pipeline, 'late');
    await late.start();
    await pipeline.drained(patiently);
    expect(await effects(pipeline, 'late')).toBe(7);
  });

  it('names messages that are not in the log', async () => {
    await using pipeline = await start({ consumers: (env) => [recording(env)] });
    await pipeline.relay.stop();
    await pipeline.publish(counted(2));
    await expect(pipeline.drained({ timeoutMs: 100 })).rejects.toMatchObject({
      code: 'TIMEOUT',
      message: expect.stringContaining('Not in the log: 2 (the relay is stopped)'),
      details: { notInLog: 2, behind: {} },
    });
  });

  it('names groups that were made and not started, or are behind and stopped', async () => {
    await using pipeline = await start({ consumers: (env) => [recording(env)] });
    pipeline.consumer('idle').on(Counted, () => undefined);
    const stopped = recording(pipeline, 'stopped');
    await stopped.start();
    await stopped.stop();
    await pipeline.publish(counted(3));
    await expect.poll(() => effects(pipeline), patient).toBe(3); // so they are in the log
    await expect(pipeline.drained({ timeoutMs: 200 })).rejects.toMatchObject({
      message: expect.stringMatching(
        /Group idle was never started \(idle, handlers running: 0\)\. Not handled by group stopped: 3 \(stopped,/,
      ),
    });
  });

  it('throws at once what the relay has halted with', async () => {
    await using pipeline = await start();
    await pipeline.pool.query('drop table tailrace.log_entry');
    await pipeline.publish(counted(1));
    await expect.poll(() => pipeline.relay.status().state, patient).toBe('halted');
    await pipeline.pool.query(
      'create table tailrace.log_entry (partition int, base bigint, count int, ids bigint[], packed bytea)',
    );
    await expect(pipeline.drained(patiently)).rejects.toThrow(/log_entry/);
  });

  it('goes on after connections were cut', async () => {
    await using pipeline = await start({ consumers: (env) => [recording(env)] });
    await pipeline.publish(counted(10));
    await pipeline.drained(patiently);
    await asAdmin(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${nameOf(pipeline.connectionString)}'`,
    );
    await expect.poll(() => pipeline.publish(counted(10)).catch(() => undefined), patient).toBeDefined();
    await pipeline.drained(patiently);
    expect(await effects(pipeline)).toBeGreaterThanOrEqual(20); // a publish whose answer was lost is repeated
  });

  it('ends when the pipeline stops', async () => {
    const pipeline = await start();
    await pipeline.relay.stop();
    await pipeline.publish(counted(1));
    const drained = pipeline.drained(patiently);
    const ended = expect(drained).rejects.toMatchObject({ code: 'STOPPED' });
    await pipeline.stop();
    await ended;
    await expect(pipeline.drained()).rejects.toMatchObject({ code: 'STOPPED' });
  });
});

describe('dead letters', () => {
  it('are shown, and drained does not wait for them', async () => {
    await using pipeline = await start();
    const retries = { attempts: 2, backoff: { initialMs: 1 } };
    const consumer = pipeline.consumer('failing', { retries }).on(Counted, ({ payload: { n } }) => {
      if (n === 1) throw new Error('no such account');
    });
    await consumer.start();
    const [, failing] = await pipeline.publish(counted(3, 1));
    await pipeline.drained(patiently);
    expect(await pipeline.deadLetters()).toEqual([
      {
        group: 'failing',
        topic: 'counts',
        partition: expect.any(Number),
        offset: 1n,
        messageId: failing!.id,
        type: 'Counted',
        key: 'k0',
        headers: {},
        payload: { key: 'k0', n: 1 },
        reason: 'HANDLER_FAILED',
        error: expect.stringContaining('Error: no such account'),
        attempts: 2,
      },
    ]);
    expect(consumer.status()).toMatchObject({ handled: 2, dead: 1 });
  });
});

describe('a stopped test pipeline', () => {
  it('leaves no database, no slot and no connection, also when called twice', async () => {
    const pipeline = await start({ consumers: (env) => [recording(env)] });
    const name = nameOf(pipeline.connectionString);
    await pipeline.publish(counted(5));
    await pipeline.drained(patiently);
    await expect.poll(() => pipeline.relay.status().source?.mode, patient).toBe('wal');
    expect(await leftOf(name)).toEqual({ databases: 1, slots: 1, connections: expect.any(Number) });
    await Promise.all([pipeline.stop(), pipeline.stop()]);
    await pipeline.stop();
    expect(await leftOf(name)).toEqual({ databases: 0, slots: 0, connections: 0 });
  });

  it('leaves nothing of a client that a test has kept', async () => {
    const pipeline = await start();
    const client = await pipeline.pool.connect();
    await client.query('begin');
    await pipeline.stop();
    expect(await leftOf(nameOf(pipeline.connectionString))).toEqual({ databases: 0, slots: 0, connections: 0 });
    client.release(true);
  });

  it('leaves nothing when it could not start', async () => {
    let url = '';
    const starting = start({
      consumers: (env) => {
        url = env.connectionString;
        return [env.consumer('without handlers')];
      },
    });
    await expect(starting).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    expect(await leftOf(nameOf(url))).toEqual({ databases: 0, slots: 0, connections: 0 });
  });

  it('lets its consumers end first', async () => {
    const pipeline = await start();
    const handler = gate();
    const consumer = pipeline.consumer('slow').on(Counted, () => handler.pass());
    await consumer.start();
    await pipeline.publish(counted(1));
    await handler.entered;
    const stopping = pipeline.stop();
    handler.open();
    await stopping;
    expect(consumer.status()).toMatchObject({ state: 'stopped', handled: 1 });
  });
});

describe('options', () => {
  it('take another schema', async () => {
    await using pipeline = await start({ schema: 'messaging', consumers: (env) => [recording(env)] });
    await pipeline.publish(counted(4));
    await pipeline.drained(patiently);
    expect(await effects(pipeline)).toBe(4);
    const { rows } = await pipeline.pool.query('select count(*)::int from messaging.outbox');
    expect(rows).toEqual([{ count: 4 }]);
    expect(await pipeline.deadLetters()).toEqual([]);
  });

  it('refuse what is not the URL of a server, without showing it', async () => {
    const starting = startTestPipeline({ connectionString: 'host=db password=secret' });
    await expect(starting).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.not.stringContaining('secret'),
    });
  });
});

function nameOf(url: string): string {
  return new URL(url).pathname.slice(1);
}

async function leftOf(database: string): Promise<unknown> {
  const [row] = await asAdmin(`select
    (select count(*)::int from pg_database where datname = '${database}') as databases,
    (select count(*)::int from pg_replication_slots where database = '${database}') as slots,
    (select count(*)::int from pg_stat_activity where datname = '${database}') as connections`);
  return row;
}

async function asAdmin(sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(adminUrl);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}
