import type pg from 'pg';
import { childrenSeconds, cpuSeconds, microsPerMessage, round, serverCpu, type ServerCpu } from './cpu.ts';
import type { Bench } from './suite.ts';

/** What a run took of the machine, for each message. */
export interface Cost {
  /** Of the client's process, without its start-up. */
  readonly clientCpuMicros: number;
  readonly serverCpuMicros: ServerCpu;
  /** Everything that was written to the log meanwhile, whoever wrote it. */
  readonly walBytes: number;
}

/** What `action` costs. `pid`: the client, if it is a process of its own that is there before and after. */
export async function costOf<T>(
  { server }: Pick<Bench, 'server'>,
  client: pg.Client,
  { messages, pid }: { readonly messages: number; readonly pid?: number },
  action: () => Promise<T>,
): Promise<{ readonly result: T; readonly cost: Cost }> {
  const clientSeconds = (): Promise<number> => (pid === undefined ? childrenSeconds() : cpuSeconds(pid));
  const before = { wal: await walEnd(client), server: await serverCpu(server.pid), client: await clientSeconds() };
  const result = await action();
  const after = { client: await clientSeconds(), server: await serverCpu(server.pid), wal: await walEnd(client) };
  return {
    result,
    cost: {
      clientCpuMicros: round(((after.client - before.client) * 1e6) / messages),
      serverCpuMicros: microsPerMessage(before.server, after.server, messages),
      walBytes: round(Number(after.wal - before.wal) / messages),
    },
  };
}

async function walEnd(client: pg.Client): Promise<bigint> {
  const { rows } = await client.query<{ bytes: string }>(
    `select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::text as bytes`,
  );
  return BigInt(rows[0]?.bytes ?? 0);
}

/** The log's bytes that the sessions of tailrace in this database have written so far; from Postgres 18 on. */
export async function walBytesOfTailrace(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ bytes: number }>(
    `select coalesce(sum(w.wal_bytes), 0)::float8 as bytes
     from pg_stat_activity a, lateral pg_stat_get_backend_wal(a.pid) w
     where a.datname = current_database() and a.application_name like 'tailrace%'`,
  );
  return rows[0]?.bytes ?? 0;
}
