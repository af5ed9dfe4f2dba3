import type pg from 'pg';
import { readLag } from '../../admin/figures.ts';
import { currentVersion, readMigrations } from '../../postgres/migrations.ts';
import { quoteSchema } from '../../postgres/schema-name.ts';
import { readFacts, type SourceFacts } from '../../source/preflight.ts';
import { type GroupRow, readGroups } from '../groups-command.ts';
import { ROLES, type RoleKind } from '../init/rights.ts';
import { type LossOutlook, type MaintenanceHealth, readLossOutlooks, readMaintenance } from './retention-health.ts';
import { readSlotGrowth, type SlotGrowth } from './slot-growth.ts';

/** The partitions of `processed_message`: how many weeks ahead they reach, and what keeps old rows. */
export interface ProcessedHealth {
  readonly weeksAhead: number;
  readonly held: HeldRows | undefined;
}

/** The first of the places that old rows wait for, how many there are, and for how long the rows wait. */
export interface HeldRows {
  readonly forSeconds: number;
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly places: number;
}

/** What the doctor knows. What could not be read, for want of a right or since it is not there, is `undefined`. */
export interface DoctorFacts {
  readonly schema: string;
  readonly slotName: string;
  readonly server: ServerFacts;
  /** The server's clock minus this machine's, in milliseconds. */
  readonly clockDifferenceMs: number;
  readonly hasSchema: boolean;
  readonly maySeeSchema: boolean;
  /** The last migration that was applied. */
  readonly version: number | undefined;
  readonly knownVersion: number;
  /** For each kind of process, the rights that this role lacks. */
  readonly missingRights: Readonly<Record<WorkKind, readonly string[]>>;
  readonly source: SourceFacts | undefined;
  readonly slot: SlotHealth | undefined;
  readonly outbox: OutboxHealth | undefined;
  readonly processed: ProcessedHealth | undefined;
  /** `null`: no relay has ever run. */
  readonly lease: LeaseHealth | null | undefined;
  /** How many messages the relay could not route. */
  readonly relayDeadLetters: number | undefined;
  readonly groups: readonly GroupRow[] | undefined;
  /** Groups that retention may reach. */
  readonly outlooks: readonly LossOutlook[] | undefined;
  readonly maintenance: MaintenanceHealth | undefined;
}

/** What a role can be fit for. */
export type WorkKind = 'app' | 'relay' | 'consumer';

export interface ServerFacts {
  readonly version: string;
  readonly versionNumber: number;
  readonly inRecovery: boolean;
  readonly role: string;
  readonly walLevel: string;
  readonly freeSlots: number;
  readonly freeWalSenders: number;
  readonly walSenderTimeoutMs: number;
  /** `undefined`: no limit. */
  readonly slotWalLimitBytes: number | undefined;
  readonly synchronousCommit: string;
}

export interface SlotHealth {
  readonly active: boolean;
  readonly isOurs: boolean;
  /** `reserved`, `extended`, `unreserved` or `lost`; `null` before its creation has finished. */
  readonly walStatus: string | null;
  readonly retainedBytes: number;
  /** `undefined` where there is no limit that it could reach, or on a standby. */
  readonly growth?: SlotGrowth | undefined;
}

export interface OutboxHealth {
  /** Positions left in the partitions that exist. */
  readonly positionsAhead: number;
  /** How many messages the relay has yet to read. Not counted further than a million. */
  readonly waiting: number;
  readonly oldestWaitingSeconds: number;
}

export interface LeaseHealth {
  readonly holder: string;
  readonly isHeld: boolean;
  readonly expiredSeconds: number;
  /** The mode that was asked for; `null`: the choice is the relay's. */
  readonly wantedMode: string | null;
  /** How it reads, and why not as it was to; `null` where it has not said so. */
  readonly mode: string | null;
  readonly modeReason: string | null;
}

/** Reads what can be read; nothing is changed. */
export async function readDoctorFacts(
  client: pg.Client,
  schema: string,
  slot: string | undefined,
): Promise<DoctorFacts> {
  const server = await readServer(client);
  const { databaseOid, hasSchema, maySeeSchema } = await readPlace(client, schema);
  const slotName = slot ?? `${schema.slice(0, 50)}_${databaseOid}`;
  const tables = maySeeSchema ? await readableTables(client, schema) : new Set<string>();
  const may = (...names: string[]): boolean => names.every((name) => tables.has(name));
  const quoted = quoteSchema(schema);
  return {
    schema,
    slotName,
    server,
    clockDifferenceMs: await clockDifference(client),
    hasSchema,
    maySeeSchema,
    version: !hasSchema ? 0 : may('migration') ? await currentVersion(client, schema) : undefined,
    knownVersion: (await readMigrations(schema)).at(-1)?.version ?? 0,
    missingRights: await readMissingRights(client, schema, maySeeSchema),
    source: maySeeSchema ? await readFacts(client, schema) : undefined,
    slot: await readSlotHealth(client, slotName, server),
    outbox: may('outbox', 'log_entry', 'relay_batch', 'relay_dead_letter')
      ? await readOutbox(client, quoted)
      : undefined,
    processed: maySeeSchema && hasSchema ? await readProcessed(client, schema) : undefined,
    lease: may('relay_lease') ? await readLease(client, quoted) : undefined,
    relayDeadLetters: may('relay_dead_letter') ? await countRelayDeadLetters(client, quoted) : undefined,
    groups: may('consumer_group', 'consumer_member', 'consumer_cursor', 'parked_message', 'log_partition', 'log_entry')
      ? await readGroups(client, quoted)
      : undefined,
    outlooks: may('consumer_cursor', 'log_topic', 'log_partition', 'log_entry', 'log_segment')
      ? await readLossOutlooks(client, quoted)
      : undefined,
    maintenance: may('outbox', 'log_maintenance') ? await readMaintenance(client, quoted) : undefined,
  };
}

async function one<Row extends pg.QueryResultRow>(
  client: pg.Client,
  sql: string,
  values: unknown[] = [],
): Promise<Row> {
  const { rows } = await client.query<Row>(sql, values);
  const [row] = rows;
  if (row === undefined) throw new Error('The server answered no row.');
  return row;
}

async function readServer(client: pg.Client): Promise<ServerFacts> {
  const setting = (name: string): string => `(select setting from pg_settings where name = '${name}')`;
  const row = await one<Omit<ServerFacts, 'slotWalLimitBytes'> & { readonly slotWalLimitMb: number }>(
    client,
    `select current_setting('server_version') as version, current_setting('server_version_num')::int as "versionNumber",
      pg_is_in_recovery() as "inRecovery", current_user::text as role, current_setting('wal_level') as "walLevel",
      ${setting('max_replication_slots')}::int - (select count(*)::int from pg_replication_slots) as "freeSlots",
      ${setting('max_wal_senders')}::int - (select count(*)::int from pg_stat_replication) as "freeWalSenders",
      ${setting('wal_sender_timeout')}::int as "walSenderTimeoutMs",
      ${setting('max_slot_wal_keep_size')}::int as "slotWalLimitMb",
      current_setting('synchronous_commit') as "synchronousCommit"`,
  );
  const { slotWalLimitMb, ...server } = row;
  return { ...server, slotWalLimitBytes: slotWalLimitMb < 0 ? undefined : slotWalLimitMb * 1024 ** 2 };
}

function readPlace(
  client: pg.Client,
  schema: string,
): Promise<{ databaseOid: string; hasSchema: boolean; maySeeSchema: boolean }> {
  return one(
    client,
    `select d.oid::text as "databaseOid", n.oid is not null as "hasSchema",
        coalesce(has_schema_privilege(n.oid, 'usage'), false) as "maySeeSchema"
      from pg_database d left join pg_namespace n on n.nspname = $1 where d.datname = current_database()`,
    [schema],
  );
}

/** Half of the way there and back counts as the way there. */
async function clockDifference(client: pg.Client): Promise<number> {
  const before = Date.now();
  const { now } = await one<{ now: number }>(
    client,
    'select (extract(epoch from clock_timestamp()) * 1000)::float8 as now',
  );
  return now - (before + Date.now()) / 2;
}

async function readableTables(client: pg.Client, schema: string): Promise<Set<string>> {
  const { rows } = await client.query<{ name: string }>(
    `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relkind in ('r', 'p') and has_table_privilege(c.oid, 'select')`,
    [schema],
  );
  return new Set(rows.map(({ name }) => name));
}

async function readMissingRights(
  client: pg.Client,
  schema: string,
  maySeeSchema: boolean,
): Promise<DoctorFacts['missingRights']> {
  const of = async (kind: RoleKind): Promise<string[]> =>
    maySeeSchema ? await missingRightsOf(client, schema, kind) : [`usage on the schema ${schema}`];
  return { app: await of('app'), relay: await of('relay_poll'), consumer: await of('consumer') };
}

/** Of a right as `insert (a, b)`, the columns that it is not there for. */
async function missingRightsOf(client: pg.Client, schema: string, kind: RoleKind): Promise<string[]> {
  const role = ROLES.find((each) => each.kind === kind);
  const wanted = Object.entries(role?.tables ?? {}).flatMap(([table, rights]) =>
    rights.flatMap((right) => {
      const [, verb = '', columns] = /^(\w+)(?: \((.*)\))?$/.exec(right) ?? [];
      return (columns?.split(', ') ?? [null]).map((column) => ({ table, verb, column }));
    }),
  );
  const { rows } = await client.query<{ missing: string }>(
    `select w.verb || coalesce(' (' || string_agg(w.col, ', ' order by w.place) || ')', '') || ' on ' || w.tab as missing
      from unnest($2::text[], $3::text[], $4::text[]) with ordinality w (tab, verb, col, place)
      join pg_class c on c.relname = w.tab join pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
      where not case when w.col is null then has_table_privilege(c.oid, w.verb)
        else has_column_privilege(c.oid, w.col, w.verb) end
      group by w.verb, w.tab
    union select 'execute on ' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace and n.nspname = $1
      where p.proname = any($5) and not has_function_privilege(p.oid, 'execute')
    order by 1`,
    [
      schema,
      wanted.map(({ table }) => table),
      wanted.map(({ verb }) => verb),
      wanted.map(({ column }) => column),
      role?.functions ?? [],
    ],
  );
  return rows.map(({ missing }) => missing);
}

async function readSlotHealth(
  client: pg.Client,
  name: string,
  { slotWalLimitBytes, inRecovery }: ServerFacts,
): Promise<SlotHealth | undefined> {
  const { rows } = await client.query<Omit<SlotHealth, 'retainedBytes' | 'growth'> & { retained: string }>(
    `select active, plugin is not distinct from 'pgoutput' and database = current_database() as "isOurs",
        wal_status as "walStatus",
        coalesce(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
          restart_lsn), 0)::text as retained
      from pg_replication_slots where slot_name = $1`,
    [name],
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  const { retained, ...slot } = row;
  const mayFill = slotWalLimitBytes !== undefined && !inRecovery && slot.isOurs && slot.walStatus !== 'lost';
  return {
    ...slot,
    retainedBytes: Number(retained),
    growth: mayFill ? await readSlotGrowth(client, name) : undefined,
  };
}

async function readOutbox(client: pg.Client, schema: string): Promise<OutboxHealth> {
  const { ahead } = await one<{ ahead: string }>(
    client,
    `select coalesce(max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''(\\d+)''\\)')::bigint), 1)
        - 1 - coalesce((select max(position) from ${schema}.outbox), 0) as ahead
      from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = '${schema}.outbox'::regclass`,
  );
  const { lagMessages, lagSeconds } = await readLag(client, schema);
  return { positionsAhead: Number(ahead), waiting: lagMessages, oldestWaitingSeconds: lagSeconds };
}

async function readProcessed(client: pg.Client, schema: string): Promise<ProcessedHealth | undefined> {
  const { ahead } = await one<{ ahead: number | null }>(
    client,
    `select max(substring(c.relname from '_w(\\d+)$')::bigint)::int
        - floor(extract(epoch from clock_timestamp()) / (7 * 24 * 3600))::int as ahead
      from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
      join pg_namespace n on n.oid = p.relnamespace where n.nspname = $1 and p.relname = 'processed_message'`,
    [schema],
  );
  return ahead === null ? undefined : { weeksAhead: ahead, held: await readHeld(client, schema) };
}

/** Whoever may not look, and a schema before migration 13, knows of nothing that is held. */
async function readHeld(client: pg.Client, schema: string): Promise<HeldRows | undefined> {
  const { rows: tables } = await client.query(
    `select from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = $1 and c.relname in ('processed_round', 'processed_hold', 'consumer_cursor')
        and has_table_privilege(c.oid, 'select')`,
    [schema],
  );
  if (tables.length < 3) return undefined;
  const { rows } = await client.query<HeldRows>(
    `select extract(epoch from clock_timestamp() - r.began_at)::float8 as "forSeconds", h.group_name as group, h.topic, h.partition,
        (count(*) over ())::int as places
      from ${schema}.processed_round r cross join ${schema}.processed_hold h
      join ${schema}.consumer_cursor c using (group_name, topic, partition)
      where c.next_offset < h.until_offset order by h.group_name, h.topic, h.partition limit 1`,
  );
  return rows[0];
}

async function readLease(client: pg.Client, schema: string): Promise<LeaseHealth | null> {
  const { rows } = await client.query<Omit<LeaseHealth, 'isHeld' | 'expiredSeconds'> & { expired: number }>(
    // By way of jsonb, since a schema before migration 4 lacks the modes.
    `select holder, extract(epoch from clock_timestamp() - expires_at)::float8 as expired,
        to_jsonb(l) ->> 'wanted_mode' as "wantedMode", to_jsonb(l) ->> 'mode' as mode,
        to_jsonb(l) ->> 'mode_reason' as "modeReason"
      from ${schema}.relay_lease l order by expires_at desc limit 1`,
  );
  const [row] = rows;
  if (row === undefined) return null;
  const { expired, ...lease } = row;
  return { ...lease, isHeld: expired < 0, expiredSeconds: Math.max(0, expired) };
}

async function countRelayDeadLetters(client: pg.Client, schema: string): Promise<number> {
  const { count } = await one<{ count: string }>(client, `select count(*) from ${schema}.relay_dead_letter`);
  return Number(count);
}
