import pg from 'pg';
import { pause } from '../../../src/base/signal.ts';
import { closeClient, openClient } from '../../../src/postgres/connection.ts';
import type { Fault } from '../fault.ts';
import { LEASE_MS, PATIENCE_MS, type Stage } from '../stage.ts';
import { BULK_KEY, IDLE_KEY, LATE_KEYS, HUGE_KEYS } from '../tables.ts';
import { waitUntil } from '../wait-until.ts';

/** Locks, long and huge transactions, and connections that run out. */
export const LOADS: readonly Fault[] = [
  {
    name: 'lock-log',
    what: '`LOCK TABLE log_entry` for 2 s: nothing can be appended, and nothing read',
    always: true,
    inject: (stage) => lock(stage, 'lock table tailrace.log_entry in access exclusive mode', 2_000),
  },
  {
    name: 'lock-outbox',
    what: '`LOCK TABLE outbox` for 2 s: nothing can be written, polled, or read',
    inject: (stage) => lock(stage, 'lock table tailrace.outbox in access exclusive mode', 2_000),
  },
  {
    name: 'lock-lease',
    what: 'the row of the lease is locked for longer than the lease: it can be neither renewed nor taken',
    inject: (stage) => lock(stage, 'select from tailrace.relay_lease for update', 2 * LEASE_MS),
  },
  {
    name: 'idle-writer',
    what: 'a transaction that has published stays open for 4 s: everything else has to flow on',
    inject: (stage) => idle(stage, 4_000),
  },
  {
    name: 'idle-writer-long',
    what: 'the same for 20 s',
    slow: true,
    inject: (stage) => idle(stage, 20_000),
  },
  {
    name: 'late-visibility',
    what: 'commits wait for a standby that never comes: they stand in the WAL, and are visible to nobody for 2 s',
    inject: lateVisibility,
  },
  {
    name: 'large-transaction',
    what: '1,500 messages in one commit',
    async inject(stage, random) {
      await stage.database.query('select torture.leap($1, $2, $3)', [
        random.pick(HUGE_KEYS),
        stage.takeIds(1_500),
        1_500,
      ]);
      return true;
    },
  },
  {
    name: 'huge-transaction',
    what: '300,000 messages in one commit, into a topic that nobody reads: the relay’s memory stays bounded',
    slow: true,
    async inject(stage) {
      const messages = 300_000;
      await stage.database.query('select torture.leap($1, $2, $3)', [BULK_KEY, stage.takeIds(messages), messages]);
      return waitUntil(
        async () => {
          const [row] = await stage.database.query<{ count: string }>(
            `select sum(e.count) as count from tailrace.log_entry e join tailrace.log_partition p on p.id = e.partition
               where p.topic = $1`,
            [BULK_KEY],
          );
          return Number(row?.count ?? 0) >= messages;
        },
        4 * PATIENCE_MS,
        stage.stop,
      );
    },
  },
  {
    name: 'connections-exhausted',
    what: 'all connections of the server are taken for 3 s, and those of the relays are cut',
    inject: exhaustConnections,
  },
];

async function lock(stage: Stage, sql: string, ms: number): Promise<boolean> {
  const client = await openClient({ connectionString: stage.cluster.url, applicationName: 'torture lock' });
  try {
    await client.query(`begin; ${sql}`);
    const isWaitedFor = async (): Promise<boolean> => {
      const { rows } = await client.query(
        'select from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid)) limit 1',
      );
      return rows.length > 0;
    };
    const seen = await waitUntil(isWaitedFor, PATIENCE_MS, stage.stop);
    await pause(ms, stage.stop);
    await client.query('rollback');
    return seen;
  } finally {
    await closeClient(client);
  }
}

async function idle(stage: Stage, ms: number): Promise<boolean> {
  const client = await openClient({ connectionString: stage.cluster.url, applicationName: 'torture idle' });
  try {
    await client.query('begin');
    await client.query('select torture.step($1, $2)', [IDLE_KEY, stage.takeIds(1)]);
    const before = await stage.effects();
    await pause(ms, stage.stop);
    const flowed = await waitUntil(async () => (await stage.effects()) > before, PATIENCE_MS, stage.stop);
    if (!flowed) stage.stalls.push('nothing was handled while a transaction was open');
    await client.query('commit');
    return flowed;
  } finally {
    await closeClient(client);
  }
}

async function lateVisibility(stage: Stage): Promise<boolean> {
  const { database } = stage;
  const clients: pg.Client[] = [];
  const commits: Promise<unknown>[] = [];
  await setStandby(stage, `'nobody'`);
  try {
    for (const key of LATE_KEYS) {
      const client = await openClient({
        connectionString: stage.cluster.url,
        applicationName: 'torture late',
        settings: { synchronous_commit: 'on' },
      });
      clients.push(client);
      commits.push(client.query('select torture.step($1, $2)', [key, stage.takeIds(1)]));
    }
    const inLogUnseen = async (): Promise<boolean> => {
      const { unseen } = await database.one<{ unseen: string }>(
        `select count(*) as unseen from (
           select unnest(ids) as id from tailrace.log_entry where seq > (select max(seq) - 200 from tailrace.relay_batch)
         ) e where not exists (select from tailrace.outbox o where o.position = e.id)`,
      );
      return Number(unseen) > 0;
    };
    const seen = await waitUntil(inLogUnseen, PATIENCE_MS, stage.stop);
    await pause(2_000, stage.stop);
    return seen;
  } finally {
    await setStandby(stage, undefined);
    await Promise.allSettled(commits);
    for (const client of clients) await closeClient(client);
  }
}

/** Only commits that ask for it wait: the database's own setting is local. */
async function setStandby({ database, stop }: Stage, name: string | undefined): Promise<void> {
  await database.query(
    name === undefined
      ? 'alter system reset synchronous_standby_names'
      : `alter system set synchronous_standby_names = ${name}`,
  );
  await database.query('select pg_reload_conf()');
  await waitUntil(
    async () => {
      const { value } = await database.one<{ value: string }>(
        `select current_setting('synchronous_standby_names') as value`,
      );
      return (value === '') === (name === undefined);
    },
    PATIENCE_MS,
    stop,
  );
}

async function exhaustConnections(stage: Stage): Promise<boolean> {
  const clients: pg.Client[] = [];
  const takeAll = async (): Promise<boolean> => {
    for (;;) {
      const client = new pg.Client({ connectionString: stage.cluster.url, application_name: 'torture hoarder' });
      client.on('error', () => undefined);
      try {
        await client.connect();
      } catch (error) {
        return error instanceof Error && 'code' in error && error.code === '53300';
      }
      clients.push(client);
    }
  };
  try {
    let exhausted = await takeAll();
    await stage.database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'tailrace%'`,
    );
    exhausted = (await takeAll()) && exhausted;
    await pause(3_000, stage.stop);
    return exhausted;
  } finally {
    await Promise.all(clients.map(closeClient));
  }
}
