import { postgresLog } from '../../src/broker/postgres/index.ts';
import type { HomeLog } from '../../src/broker/log.ts';
import { createRelay, type Relay, type RelayOptions } from '../../src/relay/index.ts';
import type { TestDatabase } from '../servers/test-database.ts';

/** For conditions that come true sooner or later, however slow the machine. */
export const patient = { timeout: 50_000, interval: 20 };

export type Make = (options: { connectionString: string }) => RelayOptions['source'];

/** A relay and its log, both closed at the end of the scope. */
export function relayOf(
  { connectionString }: TestDatabase,
  make: Make,
  options: Partial<RelayOptions> & { log?: HomeLog } = {},
): Relay & AsyncDisposable {
  const log = options.log ?? postgresLog({ connectionString });
  // A lease that no machine is slow enough to lose; it is given up at the stop.
  const relay = createRelay({ source: make({ connectionString }), log, leaseMs: 60_000, ...options });
  const dispose = async (): Promise<void> => {
    await relay.stop();
    await log.close();
  };
  return { start: () => relay.start(), stop: dispose, status: () => relay.status(), [Symbol.asyncDispose]: dispose };
}

export interface InLog {
  committed: number;
  lost: number;
  invented: number;
  doubled: number;
  reordered: number;
  gaps: number;
}

/** What {@link judgeLog} finds, but for `committed`, where all is well. */
export const exact = { lost: 0, invented: 0, doubled: 0, reordered: 0, gaps: 0 };

/** Holds the log, with the dead letters of the relay, against the outbox, by SQL alone. */
export async function judgeLog(database: TestDatabase): Promise<InLog> {
  const { rows } = await database.pool.query<InLog>(
    `with record as (
        select partition, e.base + x.n - 1 as record_offset, x.id
        from tailrace.log_entry e, unnest(e.ids) with ordinality x (id, n)),
      had as (select id from record union all select position from tailrace.relay_dead_letter),
      joined as (
        select r.*, o.key, o.payload::text::int as number,
          lag(o.payload::text::int) over (partition by o.topic, o.key order by r.partition, r.record_offset) as before
        from record r left join tailrace.outbox o on o.position = r.id)
      select (select count(*) from tailrace.outbox)::int as committed,
        (select count(*) from tailrace.outbox o where not exists (select from had where id = o.position))::int as lost,
        (select count(*) from joined where number is null)::int as invented,
        (select count(*) - count(distinct id) from had)::int as doubled,
        (select count(*) from joined where number <= before)::int as reordered,
        (select count(*) from (select max(record_offset) + 1 - count(*) as missing from record group by partition) g
          where missing <> 0)::int as gaps`,
  );
  const [row] = rows;
  if (row === undefined) throw new Error('No row.');
  return row;
}

export async function inLog(database: TestDatabase): Promise<number> {
  const { rows } = await database.pool.query<{ n: number }>(
    'select coalesce(sum(count), 0)::int as n from tailrace.log_entry',
  );
  return rows[0]?.n ?? 0;
}

export const publishOne = (database: TestDatabase, topic = 'orders', key = 'k'): Promise<unknown> =>
  database.pool.query(`select tailrace.publish($1, $2, 'Counted', '1')`, [topic, key]);
