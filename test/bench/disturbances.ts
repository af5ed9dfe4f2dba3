import pg from 'pg';
import { silentLogger } from '../../src/base/logger.ts';
import { maintain } from '../../src/broker/postgres/maintenance/round.ts';
import { openMaintenanceClient } from '../../src/broker/postgres/maintenance/maintenance.ts';
import { pause, startWorker } from './processes.ts';

/** Something that writers should not notice. */
export interface Disturbance {
  readonly name: string;
  readonly begin: () => Promise<void>;
  /** Resolves with what it has done, once nothing of it goes on. */
  readonly end: () => Promise<Readonly<Record<string, unknown>>>;
  /** Lets go of what it holds between its turns. */
  readonly close: () => Promise<void>;
}

/** A write transaction with a snapshot, which holds back the horizon of the whole cluster; it is `holdSeconds` old when `begin` resolves. */
export function heldSnapshot(connectionString: string, holdSeconds: number): Disturbance {
  let client: pg.Client | undefined;
  return {
    name: `while a transaction has held xmin for ${holdSeconds} s`,
    begin: async () => {
      client = new pg.Client(connectionString);
      await client.connect();
      await client.query('begin isolation level repeatable read');
      await client.query('select pg_current_xact_id()');
      await pause(holdSeconds);
    },
    end: async () => {
      await client?.query('rollback');
      await client?.end();
      return {};
    },
    close: () => Promise.resolve(),
  };
}

const READER_SECONDS = 5;
const PARTITION_ROWS = 10_000;
const SMALL_PARTITIONS = 100;
const CHANGE_EVERY_SECONDS = 1;

/** Replaces the empty partitions of a new outbox by small ones, so that some are full every few seconds. */
export async function makeSmallPartitions(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `select inhrelid::regclass::text as name from pg_inherits where inhparent = 'tailrace.outbox'::regclass`,
  );
  for (const { name } of rows) await client.query(`drop table ${name}`);
  await client.query('select tailrace.ensure_outbox_partitions($1, $2)', [SMALL_PARTITIONS, PARTITION_ROWS]);
}

/**
 * Once a second a partition of the outbox is created, and those that were written full leave as maintenance lets them, while
 * one transaction after the other that has read all of the outbox stays open for 5 s.
 */
export function changingPartitions(connectionString: string): Disturbance {
  const counts = { created: 0, dropped: 0, waits: 0 };
  let ahead = SMALL_PARTITIONS;
  let ending = new AbortController();
  let running: Promise<unknown> = Promise.resolve();

  const change = async (client: pg.Client): Promise<void> => {
    ahead = Math.max(1, ahead - 1); // the outbox has been written further meanwhile
    const { rows } = await client.query<{ count: number }>(
      'select tailrace.ensure_outbox_partitions($1, $2) as count',
      [ahead, PARTITION_ROWS * 100],
    );
    counts.created += rows[0]?.count ?? 0;
    const options = { schema: 'tailrace', holder: 'bench', keepOutboxMs: 0, waitMs: 2 * READER_SECONDS * 1000 };
    const report = await maintain(client, { ...options, logger: silentLogger });
    if (report === 'busy') counts.waits += 1;
    else counts.dropped += report.droppedPartitions;
  };
  return {
    name: `while partitions of the outbox are created and dropped behind readers of ${READER_SECONDS} s`,
    begin: () => {
      ending = new AbortController();
      const { signal } = ending;
      running = Promise.all([readOn(connectionString, signal), repeatWith(connectionString, signal, change)]);
      return Promise.resolve();
    },
    end: async () => {
      ending.abort();
      await running;
      return { ...counts };
    },
    close: () => Promise.resolve(),
  };
}

async function readOn(connectionString: string, signal: AbortSignal): Promise<void> {
  const client = new pg.Client(connectionString);
  await client.connect();
  while (!signal.aborted) {
    await client.query('begin');
    await client.query('select position from tailrace.outbox order by position limit 1');
    await pause(READER_SECONDS, signal);
    await client.query('commit');
  }
  await client.end();
}

async function repeatWith(
  connectionString: string,
  signal: AbortSignal,
  action: (client: pg.Client) => Promise<void>,
): Promise<void> {
  const client = await openMaintenanceClient(connectionString);
  while (!signal.aborted) {
    await action(client);
    await pause(CHANGE_EVERY_SECONDS, signal);
  }
  await client.end();
}

/** Members of a group, in a process that is there all the time. */
export async function restlessMembers(connectionString: string): Promise<Disturbance> {
  const members = startWorker('restless-members.ts', { connectionString });
  await members.next();
  return {
    name: 'while 8 members of a group leave and join, one every 300 ms',
    begin: async () => {
      members.tell('restless');
      await members.next();
    },
    end: async () => {
      members.tell('quiet');
      return members.next();
    },
    close: () => members.stop(),
  };
}
