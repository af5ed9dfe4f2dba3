import pg from 'pg';
import { migrate } from '../../src/postgres/migrations.ts';

export const PAYLOAD_BYTES = 300;

/** Runs `use` on a fresh, migrated database of the server, which is dropped afterwards with its slots. */
export async function withDatabase<T>(
  serverUrl: string,
  name: string,
  use: (connectionString: string, client: pg.Client) => Promise<T>,
): Promise<T> {
  const admin = new pg.Client({ connectionString: serverUrl });
  await admin.connect();
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  await admin.query(`create database ${name}`);
  try {
    const pool = new pg.Pool({ connectionString: url.href, max: 1 });
    await migrate(pool);
    await pool.end();
    const client = new pg.Client({ connectionString: url.href });
    await client.connect();
    try {
      return await use(url.href, client);
    } finally {
      await client.end();
    }
  } finally {
    await admin.query(
      'select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where database = $1 and active',
      [name],
    );
    await admin.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1', [
      name,
    ]);
    await admin.query(`drop database ${name} with (force)`);
    await admin.end();
  }
}

/** Commits so many messages, `each` in a transaction. Their commits are not awaited on disk: only what reads them is timed. */
export async function writeBacklog(client: pg.Client, messages: number, each = 1): Promise<void> {
  await client.query('set synchronous_commit = off');
  await client.query(`do $$ begin
    for n in 1..${messages / each} loop
      insert into tailrace.outbox (message_id, topic, key, type, payload)
        select gen_random_uuid(), 'orders', 'order-' || (n * ${each} + i) % 1000, 'OrderPlaced', ${pg.escapeLiteral(payload())}
        from generate_series(1, ${each}) i;
      commit;
      if n % 50000 = 0 then perform tailrace.ensure_outbox_partitions(); end if;
    end loop;
  end $$`);
  await client.query('set synchronous_commit = on');
  await client.query('checkpoint'); // also puts the asynchronous commits on disk
  await client.query('analyze tailrace.outbox');
}

/** Commits so many messages in one transaction. */
export async function writeTransaction(client: pg.Client, messages: number): Promise<void> {
  await client.query('select tailrace.ensure_outbox_partitions()');
  await client.query(`insert into tailrace.outbox (message_id, topic, key, type, payload)
    select gen_random_uuid(), 'orders', 'order-' || n % 1000, 'OrderPlaced', ${pg.escapeLiteral(payload())}
    from generate_series(1, ${messages}) n`);
}

/** The JSON of every message of a backlog. */
export function payload(): string {
  const empty = JSON.stringify({ customer: 'c-1', sku: 'sku-1', quantity: 2, note: '' });
  return empty.replace('""}', `"${'x'.repeat(PAYLOAD_BYTES - empty.length)}"}`);
}
