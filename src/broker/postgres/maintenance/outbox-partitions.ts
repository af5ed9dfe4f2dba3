import type pg from 'pg';
import type { Logger } from '../../../base/logger.ts';
import { sqlStateOf } from '../../../postgres/sqlstate.ts';
import { isNamed, packRange, type PackingOptions } from './packing.ts';

/** A partition of the outbox, as the catalog and `outbox_sealed` show it. */
export interface OutboxPartition {
  readonly name: string;
  /** Its positions are from `low` to before `high`. */
  readonly low: string;
  readonly high: string;
  /** `gone`: only its row in `outbox_sealed` is left. */
  readonly state: 'attached' | 'detaching' | 'detached' | 'gone';
  /** For how long it takes no rows; `undefined`: it takes them. */
  readonly sealedMs: number | undefined;
}

/** The next thing to do about the partitions of the outbox. */
export type PartitionStep =
  | { readonly step: 'forget' | 'drop' | 'finalize' | 'seal' | 'leave'; readonly partition: OutboxPartition }
  | { readonly step: 'none' };

/**
 * Decides the next step, from nothing but what is there: so it does not matter where a former run was interrupted. What is
 * half done comes first; then the oldest partition. Only positions that were all drawn are ever sealed.
 *
 * @param lastPosition the last that was drawn.
 * @param skip partitions that cannot go on for now.
 */
export function planPartitions(
  partitions: readonly OutboxPartition[],
  { lastPosition, keepMs, skip }: { lastPosition: bigint; keepMs: number; skip: ReadonlySet<string> },
): PartitionStep {
  const open = partitions.filter(({ name }) => !skip.has(name));
  const first = (state: OutboxPartition['state']): OutboxPartition | undefined =>
    open.find((one) => one.state === state);
  const [gone, detached, detaching] = [first('gone'), first('detached'), first('detaching')];
  if (gone !== undefined) return { step: 'forget', partition: gone };
  if (detaching !== undefined) return { step: 'finalize', partition: detaching };
  if (detached !== undefined) return { step: 'drop', partition: detached };
  for (const partition of open) {
    if (BigInt(partition.high) > lastPosition + 1n) break;
    if (partition.sealedMs === undefined) return { step: 'seal', partition };
    if (partition.sealedMs >= keepMs) return { step: 'leave', partition };
  }
  return { step: 'none' };
}

export interface LeavingOptions {
  /** Quoted. */
  readonly schema: string;
  readonly checkpointSeq: string;
  /** How long a partition stays once it takes no more rows, in milliseconds. */
  readonly keepMs: number;
  /** How long to wait for who uses a partition, in milliseconds: what was not had by then is for the next round. @defaultValue 15_000 */
  readonly waitMs?: number | undefined;
  readonly logger: Logger;
}

/** What was done, and what is left to do. */
export interface LeavingResult extends Readonly<LeavingCounts> {
  readonly isOwner: boolean;
  /** Partitions that are full and, where that is known, old enough to leave. */
  readonly waiting: number;
  /** Why the first of them is still there. */
  readonly reason: string | undefined;
}

interface LeavingCounts {
  /** Records that were packed into the log. */
  packedRecords: number;
  droppedPartitions: number;
}

/** Longer than most queries of the outbox. No partition can be attached while one is waited for to be detached. */
const WAIT_MS = 15_000;

/**
 * Seals partitions of the outbox that were written full, and removes them once they are old enough: what of them the log
 * needs is packed first. Writers wait for milliseconds, readers not at all. Throws what Postgres throws.
 */
export async function leaveOutbox(client: pg.ClientBase, options: LeavingOptions): Promise<LeavingResult> {
  const isOwner = await ownsOutbox(client, options.schema);
  const reasons = new Map<string, string>();
  const counts: LeavingCounts = { packedRecords: 0, droppedPartitions: 0 };
  for (;;) {
    const partitions = await readPartitions(client, options.schema);
    const lastPosition = await readLastPosition(client, options.schema);
    const facts = { lastPosition, keepMs: options.keepMs, skip: new Set(reasons.keys()) };
    const plan = isOwner ? planPartitions(partitions, facts) : ({ step: 'none' } as const);
    if (plan.step === 'none') {
      const waiting = partitions.filter(
        ({ high, sealedMs }) =>
          BigInt(high) <= lastPosition + 1n && (sealedMs === undefined || sealedMs >= options.keepMs),
      );
      return { isOwner, waiting: waiting.length, reason: [...reasons.values()][0], ...counts };
    }
    const reason = await take(client, options, plan, counts);
    if (reason !== undefined) reasons.set(plan.partition.name, reason);
  }
}

/** Takes one step; answers why it could not be taken. */
async function take(
  client: pg.ClientBase,
  options: LeavingOptions,
  { step, partition }: Exclude<PartitionStep, { step: 'none' }>,
  counts: LeavingCounts,
): Promise<string | undefined> {
  const { schema, logger } = options;
  switch (step) {
    case 'seal':
      return unlessBusy('a transaction that writes to it is open', () => seal(client, options, partition));
    case 'leave':
      return leave(client, options, partition, counts);
    case 'finalize':
      return detach(client, options, partition, 'finalize');
    case 'drop':
      return drop(client, options, partition, counts);
    case 'forget':
      await client.query(`delete from ${schema}.outbox_sealed where name = $1`, [partition.name]);
      logger.info({ partition: partition.name }, 'a partition of the outbox has left');
      return undefined;
  }
}

/**
 * The lock waits for transactions that have written to the partition, and for the few that are about to. From then on the
 * trigger refuses rows, so what the partition holds is final: no commit can come late.
 */
async function seal(
  client: pg.ClientBase,
  { schema, waitMs = WAIT_MS }: LeavingOptions,
  { name, low, high }: OutboxPartition,
): Promise<void> {
  await inTransaction(client, async () => {
    await client.query(`set local lock_timeout = ${waitMs}`);
    await client.query(`lock table ${schema}.${name} in share row exclusive mode`);
    await client.query(
      `create trigger refuse_sealed before insert on ${schema}.${name} for each row execute function ${schema}.refuse_sealed()`,
    );
    await client.query(`insert into ${schema}.outbox_sealed (name, low, high) values ($1, $2, $3)`, [name, low, high]);
  });
}

async function leave(
  client: pg.ClientBase,
  options: LeavingOptions,
  partition: OutboxPartition,
  counts: LeavingCounts,
): Promise<string | undefined> {
  const { schema, checkpointSeq } = options;
  const packing: PackingOptions = { schema, checkpointSeq, range: partition };
  if (await isUncovered(client, schema, partition)) return 'the relay has yet to store a checkpoint behind it';
  if (await hasDeadLetters(client, schema, partition)) return 'dead letters of the relay are in it';
  counts.packedRecords += await packRange(client, packing);
  if (await isNamed(client, packing)) return 'the newest entries of the log name rows of it';
  return detach(client, options, partition, 'concurrently');
}

/** Not in a transaction of ours. Given up on the way, it leaves the partition `detaching`. */
async function detach(
  client: pg.ClientBase,
  { schema, waitMs = WAIT_MS }: LeavingOptions,
  { name }: OutboxPartition,
  how: 'concurrently' | 'finalize',
): Promise<string | undefined> {
  const before = await lockTimeout(client);
  await client.query(`set lock_timeout = ${waitMs}`);
  try {
    return await unlessBusy('a transaction that reads the outbox is open', async () => {
      await client.query(`alter table ${schema}.outbox detach partition ${schema}.${name} ${how}`);
    });
  } finally {
    await client.query(`select set_config('lock_timeout', $1, false)`, [before]).catch(() => undefined);
  }
}

async function lockTimeout(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ setting: string }>(`select current_setting('lock_timeout') as setting`);
  return rows[0]?.setting ?? '0';
}

/** Looks once more: a partition whose messages may not all be in the log goes back. */
async function drop(
  client: pg.ClientBase,
  { schema, waitMs = WAIT_MS, logger }: LeavingOptions,
  partition: OutboxPartition,
  counts: LeavingCounts,
): Promise<string | undefined> {
  const { name, low, high } = partition;
  if (!(await isUncovered(client, schema, partition))) {
    return unlessBusy('it is in use', () =>
      inTransaction(client, async () => {
        await client.query(`set local lock_timeout = ${waitMs}`);
        await client.query(`drop table ${schema}.${name}`);
        counts.droppedPartitions += 1;
      }),
    );
  }
  await inTransaction(client, async () => {
    await client.query(`drop trigger if exists refuse_sealed on ${schema}.${name}`);
    await client.query(
      `alter table ${schema}.outbox attach partition ${schema}.${name} for values from (${low}) to (${high})`,
    );
    await client.query(`delete from ${schema}.outbox_sealed where name = $1`, [name]);
  });
  logger.error({ partition: name }, 'a partition of the outbox got rows after it was sealed: it was put back');
  return 'it got rows after it was sealed';
}

/** Whether a row is not seen by the last checkpoint: then it may not be in the log, or a relay may ask for it again. */
async function isUncovered(client: pg.ClientBase, schema: string, { name }: OutboxPartition): Promise<boolean> {
  const { rows } = await client.query<{ found: boolean }>(
    `with last as materialized (
        select split_part(checkpoint, ' ', 1)::pg_snapshot as snapshot from ${schema}.relay_batch
          where checkpoint is not null order by seq desc limit 1
      )
      select not exists (select from last) or exists (select from ${schema}.${name} o, last
        where o.tx >= pg_snapshot_xmin(last.snapshot)::text::bigint
          and not pg_visible_in_snapshot(o.tx::text::xid8, last.snapshot)) as found`,
  );
  return rows[0]?.found ?? true;
}

async function hasDeadLetters(client: pg.ClientBase, schema: string, { low, high }: OutboxPartition): Promise<boolean> {
  const { rowCount } = await client.query(
    `select from ${schema}.relay_dead_letter where position >= $1 and position < $2 limit 1`,
    [low, high],
  );
  return rowCount !== 0;
}

/** Lock not available, statement timeout, deadlock: somebody else is in the way, and will not always be. */
const BUSY = /^(55P03|57014|40P01)$/;

async function unlessBusy(reason: string, work: () => Promise<void>): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    if (BUSY.test(sqlStateOf(error) ?? '')) return reason;
    throw error;
  }
}

async function inTransaction(client: pg.ClientBase, work: () => Promise<void>): Promise<void> {
  await client.query('begin');
  try {
    await work();
    await client.query('commit');
  } catch (error) {
    await client.query('rollback').catch(() => undefined);
    throw error;
  }
}

async function ownsOutbox(client: pg.ClientBase, schema: string): Promise<boolean> {
  const { rows } = await client.query<{ owns: boolean }>(
    `select pg_has_role(current_user, relowner, 'usage') as owns from pg_class where oid = $1::regclass`,
    [`${schema}.outbox`],
  );
  return rows[0]?.owns ?? false;
}

async function readLastPosition(client: pg.ClientBase, schema: string): Promise<bigint> {
  const { rows } = await client.query<{ last: string | null }>(
    `select pg_sequence_last_value(pg_get_serial_sequence($1, 'position')::regclass) as last`,
    [`${schema}.outbox`],
  );
  return BigInt(rows[0]?.last ?? 0);
}

/** In the order of their positions. */
async function readPartitions(client: pg.ClientBase, schema: string): Promise<OutboxPartition[]> {
  const { rows } = await client.query<Omit<OutboxPartition, 'sealedMs'> & { sealed_ms: number | null }>(
    `with attached as (
        select c.relname as name, i.inhdetachpending as pending,
            substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \\(''(\\d+)''\\)') as low,
            substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''(\\d+)''\\)') as high
          from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = $1::regclass
      )
      select coalesce(a.name, s.name) as name, coalesce(a.low, s.low::text) as low, coalesce(a.high, s.high::text) as high,
          case when a.pending then 'detaching' when a.name is not null then 'attached'
            when to_regclass($2 || '.' || s.name) is not null then 'detached' else 'gone' end as state,
          (extract(epoch from clock_timestamp() - s.sealed_at) * 1000)::float8 as sealed_ms
        from attached a full join ${schema}.outbox_sealed s on s.name = a.name
        order by coalesce(a.low::bigint, s.low)`,
    [`${schema}.outbox`, schema],
  );
  return rows.map(({ sealed_ms: sealedMs, ...partition }) => ({ ...partition, sealedMs: sealedMs ?? undefined }));
}
