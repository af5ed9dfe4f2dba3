import pg from 'pg';
import { isTailraceError } from '../../../src/base/errors.ts';
import { postgresLog, type PostgresLog } from '../../../src/broker/postgres/index.ts';
import { seekGroup } from '../../../src/consumer/index.ts';
import { listenToPool } from '../../../src/postgres/pool-listener.ts';
import { GROUPS } from '../groups.ts';
import { PATIENCE_MS, type Stage } from '../stage.ts';
import { TOPIC } from '../tables.ts';
import { waitUntil } from '../wait-until.ts';

/**
 * What an operator does after the failover of a log whose groups are in another database: these know of records that are gone.
 * Before anything is appended, every place beyond the end is moved to it. Members that run let go of all partitions, with what
 * they still have in memory of the former log.
 */
export async function moveGroupsBack(stage: Stage): Promise<void> {
  const log = postgresLog({ connectionString: stage.cluster.url });
  const pool = new pg.Pool({
    connectionString: stage.handlersCluster.url,
    max: 1,
    application_name: 'torture operator',
  });
  listenToPool(pool);
  try {
    for (const { partition, end } of await log.ends(TOPIC)) {
      for (const group of GROUPS) await moveBack(stage, log, pool, { group, partition, end });
    }
    await waitUntil(() => isNothingParked(stage, log), PATIENCE_MS, stage.stop);
  } finally {
    await pool.end();
    await log.close();
  }
}

interface Place {
  readonly group: string;
  readonly partition: number;
  readonly end: bigint;
}

async function moveBack(
  stage: Stage,
  log: PostgresLog,
  database: pg.Pool,
  { group, partition, end }: Place,
): Promise<void> {
  const moveTo = async (to: { readonly offset: bigint } | { readonly by: bigint }): Promise<boolean> => {
    try {
      const moves = await seekGroup({ log, database, group, topic: TOPIC, partition, to });
      stage.history.write('seek', 'info', { group, moves: moves.map(({ from, to: there }) => `${from} ${there}`) });
      return true;
    } catch (error) {
      if (isTailraceError(error, 'OFFSET_OUT_OF_RANGE')) return false;
      throw error;
    }
  };
  const isWithin = await moveTo({ by: 0n }); // moves nothing, and lets its member take it anew
  if (!isWithin) await moveTo({ offset: end });
}

/** Retries of records that are gone stand in the way of others at their offsets. */
async function isNothingParked(stage: Stage, log: PostgresLog): Promise<boolean> {
  const ends = await log.ends(TOPIC);
  const rows = await stage.handlers.query(
    `select from tailrace.parked_message p join unnest($1::int[], $2::bigint[]) e (partition, ending)
       on p.partition = e.partition and p.record_offset >= e.ending`,
    [ends.map(({ partition }) => partition), ends.map(({ end }) => end.toString())],
  );
  return rows.length === 0;
}
