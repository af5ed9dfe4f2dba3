import type pg from 'pg';
import { RECEIVED, receivedAtSql, secondsToLossSql } from '../../admin/figures.ts';

/** How near a group is to losing records to retention, in the partition where it is nearest. */
export interface LossOutlook {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  /** 0 or less: it has begun. */
  readonly secondsToLoss: number;
  /** How much of what its topic keeps the group has let pass: 0 to 1, or more. */
  readonly used: number;
}

/** Who looked after the log last, and what it left. */
export interface MaintenanceHealth {
  /** `undefined`: nobody ever did. */
  readonly secondsAgo: number | undefined;
  readonly isOwner: boolean;
  /** Partitions of the outbox that could leave. */
  readonly waiting: number;
  readonly reason: string | null;
  /** Partitions of the outbox that are full and still there. */
  readonly full: number;
}

/** `schema` is quoted. Throws what Postgres throws. */
export async function readMaintenance(client: pg.Client, schema: string): Promise<MaintenanceHealth> {
  const { rows } = await client.query<MaintenanceHealth>(
    `select extract(epoch from clock_timestamp() - m.ran_at)::float8 as "secondsAgo", coalesce(m.is_owner, false) as "isOwner",
        coalesce(m.waiting, 0) as waiting, m.reason,
        (select count(*)::int from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = $1::regclass
          and substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''(\\d+)''\\)')::bigint
            <= (select coalesce(max(position), 0) from ${schema}.outbox)) as full
      from (values (1)) one (n) left join ${schema}.log_maintenance m on true`,
    [`${schema}.outbox`],
  );
  const [row] = rows;
  if (row === undefined) throw new Error('The server answered no row.');
  return { ...row, secondsAgo: row.secondsAgo ?? undefined };
}

/** For each group of this database that retention may reach. `schema` is quoted. Throws what Postgres throws. */
export async function readLossOutlooks(client: pg.Client, schema: string): Promise<LossOutlook[]> {
  const { rows } = await client.query<LossOutlook>(
    `select distinct on (place.group) * from (
      select c.group_name as group, c.topic, c.partition, ${secondsToLossSql(schema)} as "secondsToLoss",
          case when ${RECEIVED} < p.start then 1 else greatest(
            extract(epoch from clock_timestamp() - ${receivedAtSql(schema)}) * 1000 / t.retention_ms,
            (select sum(bytes) filter (where next_base > ${RECEIVED}) / t.retention_bytes
              from ${schema}.log_segment s where s.partition = p.id))::float8 end as used
        from ${schema}.consumer_cursor c
        join ${schema}.log_partition p using (topic, partition)
        join ${schema}.log_topic t on t.name = c.topic
        left join lateral (select base + count as next_offset from ${schema}.log_entry
          where partition = p.id order by base desc limit 1) last on true
      ) place where "secondsToLoss" is not null and used is not null order by place.group, used desc`,
  );
  return rows;
}
