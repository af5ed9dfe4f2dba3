import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { formatLsn, parseLsn, type Lsn } from '../base/lsn.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import type { Place } from './place.ts';

/** What a source has to know of the server, the outbox and its slot before it reads. */
export interface SourceFacts {
  readonly serverVersion: number;
  readonly walLevel: string;
  readonly inRecovery: boolean;
  readonly mayReplicate: boolean;
  readonly walSenderTimeoutMs: number;
  /** What the server lets a slot hold back at most; `undefined` where it sets no limit. */
  readonly maxSlotWalKeepBytes: number | undefined;
  readonly database: string;
  readonly databaseOid: string;
  readonly outboxFound: boolean;
  readonly outboxLogged: boolean;
  readonly rowSecurityActive: boolean;
  readonly positionCache: number;
  readonly publication: PublicationFacts | undefined;
}

export interface PublicationFacts {
  readonly publishesInserts: boolean;
  readonly viaRoot: boolean;
  readonly columns: readonly string[];
  readonly rowFilter: string | undefined;
}

/** The columns that the publication must carry. */
const PUBLISHED_COLUMNS = ['position', 'topic', 'key', 'tx'] as const;

interface FactsRow {
  server_version: number;
  wal_level: string;
  in_recovery: boolean;
  may_replicate: boolean;
  wal_sender_timeout: number;
  max_slot_wal_keep_mb: number;
  database: string;
  database_oid: string;
  outbox: string | null;
  outbox_logged: boolean | null;
  row_security: boolean | null;
  position_cache: number | null;
  publishes_inserts: boolean | null;
  via_root: boolean | null;
  columns: string[] | null;
  row_filter: string | null;
}

export async function readFacts(client: pg.ClientBase, schema: string): Promise<SourceFacts> {
  const result = await client.query<FactsRow>(
    `select current_setting('server_version_num')::int as server_version, current_setting('wal_level') as wal_level,
        pg_is_in_recovery() as in_recovery,
        (select rolreplication or rolsuper from pg_roles where rolname = current_user) as may_replicate,
        (select setting::int from pg_settings where name = 'wal_sender_timeout') as wal_sender_timeout,
        (select setting::int from pg_settings where name = 'max_slot_wal_keep_size') as max_slot_wal_keep_mb,
        current_database() as database, (select oid::text from pg_database where datname = current_database()) as database_oid,
        c.oid::text as outbox, row_security_active(c.oid) as row_security,
        not exists (select from pg_inherits i join pg_class p on p.oid = i.inhrelid
          where i.inhparent = c.oid and p.relpersistence <> 'p') as outbox_logged,
        (select seqcache::int from pg_sequence
          where seqrelid = pg_get_serial_sequence(c.oid::regclass::text, 'position')::regclass) as position_cache,
        p.pubinsert as publishes_inserts, p.pubviaroot as via_root, t.attnames::text[] as columns, t.rowfilter as row_filter
      from (values ($1::text)) as wanted (schema)
      left join pg_class c on c.relname = 'outbox'
        and c.relnamespace = (select oid from pg_namespace where nspname = wanted.schema)
      left join pg_publication_tables t
        on t.pubname = wanted.schema and t.schemaname = wanted.schema and t.tablename = 'outbox'
      left join pg_publication p on p.pubname = t.pubname`,
    [schema],
  );
  const row = result.rows[0];
  if (row === undefined) throw new Error('The server answered no row.');
  return {
    serverVersion: row.server_version,
    walLevel: row.wal_level,
    inRecovery: row.in_recovery,
    mayReplicate: row.may_replicate,
    walSenderTimeoutMs: row.wal_sender_timeout,
    maxSlotWalKeepBytes: row.max_slot_wal_keep_mb < 0 ? undefined : row.max_slot_wal_keep_mb * 1024 ** 2,
    database: row.database,
    databaseOid: row.database_oid,
    outboxFound: row.outbox !== null,
    outboxLogged: row.outbox_logged ?? true,
    rowSecurityActive: row.row_security ?? false,
    positionCache: row.position_cache ?? 1,
    publication:
      row.columns === null
        ? undefined
        : {
            publishesInserts: row.publishes_inserts ?? false,
            viaRoot: row.via_root ?? false,
            columns: row.columns,
            rowFilter: row.row_filter ?? undefined,
          },
  };
}

/**
 * Refuses an outbox from which messages could be lost unseen, whatever reads it.
 *
 * @throws TailraceError `NOT_MIGRATED`, `HOT_STANDBY`, `OUTBOX_UNSAFE`.
 */
export function assertSafe(facts: SourceFacts, schema: string): void {
  const unsafe = (found: string, next: string): TailraceError =>
    new TailraceError('OUTBOX_UNSAFE', `The outbox ${schema}.outbox cannot be relayed safely: ${found}. ${next}`);
  if (!facts.outboxFound) {
    throw new TailraceError(
      'NOT_MIGRATED',
      `There is no table ${schema}.outbox in this database. Run \`tailrace migrate\`, or migrate(pool), first.`,
    );
  }
  if (facts.inRecovery) {
    throw new TailraceError(
      'HOT_STANDBY',
      'This server is a hot standby: its snapshots leave out running transactions. Connect the relay to the primary.',
    );
  }
  if (!facts.outboxLogged) {
    throw unsafe('one of its partitions is UNLOGGED', 'A crash would empty it: ALTER TABLE … SET LOGGED.');
  }
  if (facts.rowSecurityActive) {
    throw unsafe('row security hides rows from this role', 'Grant the role BYPASSRLS, or disable row security on it.');
  }
  if (facts.positionCache !== 1) {
    throw unsafe(
      `its identity hands out ${facts.positionCache} values at a time, expected 1`,
      'ALTER SEQUENCE … CACHE 1; otherwise positions do not follow the order of inserts.',
    );
  }
}

/**
 * Refuses a place of which this server has not come to yet: the log was restored into it, from a dump, with what another
 * server stored. To such a checkpoint everything new would look as if the log had it.
 *
 * @throws TailraceError `WRONG_CLUSTER`.
 */
export async function assertReached(client: pg.ClientBase, place: Place, schema: string): Promise<void> {
  const { rows } = await client.query<{ xmax: string; wal_end: string }>(
    `select pg_snapshot_xmax(pg_current_snapshot())::text as xmax, pg_current_wal_insert_lsn()::text as wal_end`,
  );
  const [{ xmax, wal_end: walEnd } = { xmax: '0', wal_end: '0/0' }] = rows;
  const isReached = place.snapshot.xmax <= Number(xmax) && place.end <= parseLsn(walEnd);
  if (isReached) return;
  throw new TailraceError(
    'WRONG_CLUSTER',
    `The log of ${schema} says that it holds what was committed up to transaction ${place.snapshot.xmax} and WAL position ${formatLsn(place.end)}; ` +
      `this server has come to ${xmax} and ${walEnd}. It was restored from another server's dump, and new messages would be taken for ones that it holds. ` +
      `Let the relay compare the whole outbox with the log: update ${quoteSchema(schema)}.relay_batch set checkpoint = null, progress = '0/0'`,
  );
}

/** Why the WAL cannot be read, in one sentence; `undefined` if it can. */
export function whyNoWal(facts: SourceFacts, schema: string): string | undefined {
  if (facts.walLevel !== 'logical')
    return `wal_level is ${facts.walLevel}; it must be logical (needs a restart of the server)`;
  if (!facts.mayReplicate) return 'the role has no REPLICATION attribute';
  const { publication } = facts;
  if (publication === undefined) return `the publication ${schema} does not exist, or does not hold ${schema}.outbox`;
  if (!publication.publishesInserts) return `the publication ${schema} does not publish inserts`;
  if (!publication.viaRoot) return `the publication ${schema} does not publish through the partition root`;
  if (publication.rowFilter !== undefined) return `the publication ${schema} has a row filter on the outbox`;
  const missing = PUBLISHED_COLUMNS.filter((column) => !publication.columns.includes(column));
  if (missing.length > 0) return `the publication ${schema} leaves out the columns ${missing.join(', ')}`;
  return undefined;
}

/** A slot as `pg_replication_slots` shows it. */
export interface SlotFacts {
  readonly plugin: string | undefined;
  readonly database: string | undefined;
  readonly activePid: number | undefined;
  readonly confirmedFlush: Lsn | undefined;
  /** Why the server has given it up, so that nothing can be read from it any more; `undefined` if it can. */
  readonly lost: string | undefined;
}

export async function readSlot(client: pg.ClientBase, slot: string): Promise<SlotFacts | undefined> {
  const result = await client.query<{
    plugin: string | null;
    database: string | null;
    active_pid: number | null;
    confirmed_flush_lsn: string | null;
    wal_status: string | null;
    invalidation_reason: string | null;
  }>(
    `select plugin, database, active_pid, confirmed_flush_lsn::text, wal_status,
        to_jsonb(s) ->> 'invalidation_reason' as invalidation_reason
      from pg_replication_slots s where slot_name = $1`,
    [slot],
  );
  const row = result.rows[0];
  if (row === undefined) return undefined;
  return {
    plugin: row.plugin ?? undefined,
    database: row.database ?? undefined,
    activePid: row.active_pid ?? undefined,
    confirmedFlush: row.confirmed_flush_lsn === null ? undefined : parseLsn(row.confirmed_flush_lsn),
    lost: row.invalidation_reason ?? (row.wal_status === 'lost' ? 'wal_removed' : undefined),
  };
}

/**
 * Refuses a slot that somebody else made for another purpose: it must be neither read nor dropped.
 *
 * @throws TailraceError `SLOT_TAKEN`.
 */
export function assertOurSlot(slot: SlotFacts | undefined, name: string, database: string): void {
  if (slot === undefined || (slot.plugin === 'pgoutput' && slot.database === database)) return;
  throw new TailraceError(
    'SLOT_TAKEN',
    `The replication slot ${name} is one of ${slot.plugin ?? 'physical replication'} in the database ${slot.database ?? '(none)'}, expected pgoutput in ${database}. Name another one with the option slot, or drop it if nobody uses it.`,
  );
}

/**
 * Why streaming from this slot could leave a gap, in one sentence; `undefined` if it cannot.
 *
 * @param end the position up to which the log is known to hold everything.
 */
export function whyNotSlot(slot: SlotFacts | undefined, end: Lsn): string | undefined {
  if (slot === undefined) return 'it does not exist';
  if (slot.lost !== undefined) return `the server has invalidated it (${slot.lost})`;
  if (slot.confirmedFlush === undefined) return 'its creation did not finish';
  if (end === 0n) return 'it is older than this log';
  if (slot.confirmedFlush > end) return 'it is ahead of the log, as one that was created anew or advanced by hand';
  return undefined;
}
