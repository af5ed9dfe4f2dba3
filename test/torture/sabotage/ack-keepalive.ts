import pg from 'pg';
import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication';
import { Signal } from '../../../src/base/signal.ts';
import { TailraceError } from '../../../src/base/errors.ts';
import { keyHash } from '../../../src/broker/partitioner.ts';
import type { Source } from '../../../src/relay/index.ts';

const SLOT = 'sabotage';

/** What of the library is used here. */
interface Service {
  on(event: 'data', listener: (lsn: string, log: Change) => void): unknown;
  on(event: 'heartbeat', listener: (lsn: string) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  subscribe(plugin: unknown, slot: string): Promise<unknown>;
  acknowledge(lsn: string): Promise<boolean>;
  destroy(): Promise<unknown>;
}

interface Change {
  readonly tag: string;
  readonly commitEndLsn?: string | null;
  readonly new?: Readonly<Record<string, unknown>>;
}

interface Row {
  readonly position: number;
  readonly topic: string;
  readonly key: string | null;
}

/** Streams with the library's own means, and acknowledges a keepalive's WAL end while rows are waiting to be appended. */
export function ackKeepalive(_source: Source, databaseUrl: string): Source {
  return {
    async open(resume, signal) {
      const inLog = new Set(await resume.appendedSinceCheckpoint());
      await takeSlot(databaseUrl);
      const service = new LogicalReplicationService(
        { connectionString: databaseUrl, application_name: 'tailrace relay wal' },
        { acknowledge: { auto: false, timeoutSeconds: 0 } },
      ) as unknown as Service;
      const arrived = new Signal();
      let waiting: Row[] = [];
      let end = '0/0';
      let failure: TailraceError | undefined;
      service.on('data', (_lsn, change) => {
        if (change.tag === 'commit') end = change.commitEndLsn ?? end;
        if (change.tag !== 'insert' || change.new === undefined) return;
        const row = rowOf(change.new);
        if (!inLog.has(row.position)) waiting.push(row);
        arrived.notify();
      });
      service.on('heartbeat', (lsn) => void service.acknowledge(lsn));
      const fail = (error: unknown): void => {
        failure ??= new TailraceError('REPLICATION_FAILED', 'The stream ended.', { cause: error, retryable: true });
        arrived.notify();
      };
      service.on('error', fail);
      const plugin = new PgoutputPlugin({ protoVersion: 1, publicationNames: ['tailrace'] });
      service.subscribe(plugin, SLOT).then(fail, fail);
      signal.addEventListener('abort', () => arrived.notify());
      return {
        status: { mode: 'wal' },
        async next(nextSignal) {
          while (waiting.length === 0) {
            nextSignal.throwIfAborted();
            if (failure !== undefined) throw failure;
            await arrived.wait(Infinity, nextSignal);
          }
          const rows = waiting;
          waiting = [];
          return {
            ids: rows.map(({ position }) => position),
            topics: rows.map(({ topic }) => topic),
            keyHashes: rows.map(({ key }) => keyHash(key)),
            progress: end,
          };
        },
        durable: () => void service.acknowledge(end),
        async close() {
          await service.destroy();
        },
      };
    },
  };
}

function rowOf(columns: Readonly<Record<string, unknown>>): Row {
  const { position, topic, key } = columns;
  return { position: Number(position), topic: String(topic), key: typeof key === 'string' ? key : null };
}

async function takeSlot(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl, application_name: 'sabotage' });
  await client.connect();
  try {
    await client.query(
      `select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where slot_name = $1 and active`,
      [SLOT],
    );
    await client.query(
      `select pg_create_logical_replication_slot($1, 'pgoutput')
         where not exists (select from pg_replication_slots where slot_name = $1)`,
      [SLOT],
    );
  } finally {
    await client.end();
  }
}
