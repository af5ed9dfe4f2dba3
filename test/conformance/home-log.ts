import { fork, type ChildProcess } from 'node:child_process';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { silentLogger } from '../../src/base/logger.ts';
import { openMaintenanceClient } from '../../src/broker/postgres/maintenance/maintenance.ts';
import { maintain } from '../../src/broker/postgres/maintenance/round.ts';
import type { TopicOptions } from '../../src/broker/log.ts';
import {
  postgresLog,
  type Append,
  type LogWriter,
  type NewRecord,
  type PostgresLog,
} from '../../src/broker/postgres/index.ts';
import type { LogSubject } from '../../src/testing/index.ts';
import { openPool } from '../servers/pool.ts';

const PROCESS = fileURLToPath(new URL('home-log-process.ts', import.meta.url));

/** The home log as a subject of the suite: rows in the outbox, and a writer that appends their positions. */
export function homeLogSubject(connectionString: string): LogSubject {
  return new HomeLogSubject(connectionString);
}

class HomeLogSubject implements LogSubject {
  readonly log: PostgresLog;
  readonly #connectionString: string;
  readonly #pool: pg.Pool;
  #writer: Promise<LogWriter> | undefined;
  #last: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;

  constructor(connectionString: string) {
    this.log = postgresLog({ connectionString });
    this.#connectionString = connectionString;
    this.#pool = openPool({ connectionString, max: 5 });
  }

  createTopic(topic: string, partitions: number, { compaction = false }: TopicOptions = {}): Promise<void> {
    return this.log.createTopic(topic, partitions, { compact: compaction, minCompactionLagMs: 0 });
  }

  async append(topic: string, partition: number, records: readonly NewRecord[]): Promise<void> {
    await this.#append({ topic, partition, ids: await insertRows(this.#pool, topic, records) });
  }

  /** As retention leaves a partition: whole entries go. */
  async removeBefore({
    topic,
    partition,
    offset,
  }: {
    topic: string;
    partition: number;
    offset: bigint;
  }): Promise<void> {
    await this.#pool.query(
      `delete from tailrace.log_entry e using tailrace.log_partition p
        where p.id = e.partition and p.topic = $1 and p.partition = $2 and e.base + e.count <= $3`,
      [topic, partition, String(offset)],
    );
  }

  /** As the relay reads a commit from the WAL: before its rows can be seen. */
  async appendHidden(topic: string, partition: number, records: readonly NewRecord[]): Promise<() => Promise<void>> {
    const client = await this.#pool.connect();
    await client.query('begin');
    await this.#append({ topic, partition, ids: await insertRows(client, topic, records) });
    return async () => {
      await client.query('commit');
      client.release();
    };
  }

  /** As a round of maintenance does once the relay has stored a checkpoint. */
  async compact(): Promise<void> {
    await this.#append(undefined);
    const client = await openMaintenanceClient(this.#connectionString);
    try {
      const options = { schema: 'tailrace', holder: 'conformance', keepOutboxMs: 86_400_000, logger: silentLogger };
      while ((await maintain(client, options)) === 'busy') await setTimeout(10);
    } finally {
      await client.end();
    }
  }

  /** One process at a time may append: this one makes room for the other. */
  async startProcess(): Promise<ChildProcess> {
    const released = this.#last.then(async () => {
      const writer = await this.#writer;
      this.#writer = undefined;
      await writer?.release();
    });
    this.#last = released.catch(() => undefined);
    await released;
    return fork(PROCESS, [this.#connectionString]);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await this.log.close();
    await this.#pool.end();
  }

  /** One append at a time, as a relay does. */
  #append(append: Append | undefined): Promise<void> {
    const appended = this.#last.then(async () => {
      this.#writer ??= this.#acquire();
      const writer = await this.#writer;
      const progress = String(append?.ids.at(-1) ?? 0);
      await writer.append(
        append === undefined ? { appends: [], progress, checkpoint: '1:1: ' } : { appends: [append], progress },
      );
    });
    this.#last = appended.catch(() => undefined);
    return appended;
  }

  #acquire(): Promise<LogWriter> {
    return this.log.acquireWriter({ holder: 'conformance', leaseMs: 3_600_000, signal: new AbortController().signal });
  }
}

/** Positions in the order of the records. */
async function insertRows(
  client: pg.Pool | pg.PoolClient,
  topic: string,
  records: readonly NewRecord[],
): Promise<number[]> {
  const column = (value: (record: NewRecord) => unknown): unknown[] => records.map(value);
  const { rows } = await client.query<{ position: string }>(
    `insert into tailrace.outbox
        (message_id, topic, key, type, kind, headers, payload, payload_bytes, occurred_at, expires_at, deliver_at)
      select message_id, $1, key, type, kind, headers, payload, payload_bytes, occurred_at, expires_at, deliver_at
      from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::json[], $7::json[], $8::bytea[], $9::timestamptz[],
        $10::timestamptz[], $11::timestamptz[]) with ordinality
        as r (message_id, key, type, kind, headers, payload, payload_bytes, occurred_at, expires_at, deliver_at, n)
      order by n returning position`,
    [
      topic,
      column(({ messageId }) => messageId),
      column(({ key }) => key),
      column(({ type }) => type),
      column(({ kind }) => kind),
      column(({ headers }) => JSON.stringify(headers)),
      column(({ payload }) => payload),
      column(({ payloadBytes }) => payloadBytes),
      column(({ occurredAt }) => occurredAt.toISOString()),
      column(({ expiresAt }) => expiresAt?.toISOString() ?? null),
      column(({ deliverAt }) => deliverAt?.toISOString() ?? null),
    ],
  );
  return rows.map(({ position }) => Number(position));
}
