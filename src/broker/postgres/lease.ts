import { TailraceError } from '../../base/errors.ts';
import { isSameCluster, showCluster, type Cluster } from '../../base/cluster.ts';
import { SYSTEM_IDENTIFIER_SQL, TIMELINE_SQL } from '../../postgres/cluster.ts';
import type { RelayMode } from '../log.ts';
import type { Session } from './session.ts';

/** One log has one writer, so one lease. */
export const LEASE_NAME = 'relay';

/** The `backend_pid` of a lease that was given up. No backend has it. */
const NO_BACKEND = 0;

/** The lease as its row shows it. */
export interface LeaseRow extends Cluster {
  readonly epoch: string;
  readonly holder: string;
  /** 0 if the holder gave the lease up. */
  readonly backendPid: number;
  /** As the server wrote it, to ask later whether the row is still the same. */
  readonly expiresAt: string;
  /** Until it expires, on the server's clock. */
  readonly remainingMs: number;
  /** Whether the holder's connection is there. A hint: it may be between two connections. */
  readonly connected: boolean;
}

/** What a relay that wants to write sees. */
export interface LeaseView {
  /** `undefined` on a hot standby. */
  readonly cluster: Cluster | undefined;
  readonly row: LeaseRow | undefined;
}

/** What operators have written into the row for its holder. */
export interface AskedOfHolder {
  readonly mode: RelayMode | undefined;
  /** Whether the holder has yet to say how it reads. */
  readonly wantsReport: boolean;
  /** Whether dead letters wait to be retried or discarded. */
  readonly wantsDeadLetters: boolean;
  /** Another one after a topic was given more partitions. */
  readonly layout: string;
}

/** What to do about a lease, having looked at it. */
export type LeaseDecision =
  | { readonly action: 'create' }
  | { readonly action: 'take over'; readonly from: LeaseRow; readonly why: 'free' | 'expired' | 'holder gone' }
  | { readonly action: 'wait'; readonly waitMs: number; readonly holder: string };

/**
 * Decides from two looks, so that a holder that is just connecting again is left alone. Taking over early is safe anyway:
 * the epoch fences the former holder.
 *
 * @param previous the row at the former look, if there was one.
 * @param intervalMs the longest wait between two looks.
 */
export function decideLease(
  row: LeaseRow | undefined,
  previous: LeaseRow | undefined,
  intervalMs: number,
): LeaseDecision {
  if (row === undefined) return { action: 'create' };
  if (row.remainingMs <= 0) {
    return { action: 'take over', from: row, why: row.backendPid === NO_BACKEND ? 'free' : 'expired' };
  }
  if (!row.connected && previous?.connected === false && isSameHold(row, previous)) {
    return { action: 'take over', from: row, why: 'holder gone' };
  }
  const waitMs = Math.min(row.connected ? intervalMs : GONE_INTERVAL_MS, intervalMs, row.remainingMs + 1);
  return { action: 'wait', waitMs, holder: row.holder };
}

/** How soon a holder without a connection is looked at again: long enough to connect again. */
const GONE_INTERVAL_MS = 100;

function isSameHold(one: LeaseRow, other: LeaseRow): boolean {
  return one.epoch === other.epoch && one.backendPid === other.backendPid && one.expiresAt === other.expiresAt;
}

/**
 * @param row where the log was written last.
 * @throws TailraceError `HOT_STANDBY`, `WRONG_CLUSTER`.
 */
export function assertSameCluster(
  { cluster, row }: { readonly cluster: Cluster | undefined; readonly row: Cluster | undefined },
  quotedSchema: string,
): Cluster {
  if (cluster === undefined) {
    throw new TailraceError(
      'HOT_STANDBY',
      'This server is a hot standby, where nothing can be written. Connect the relay to the primary.',
    );
  }
  if (row === undefined || isSameCluster(cluster, row)) return cluster;
  throw wrongCluster(cluster, row, quotedSchema);
}

function wrongCluster(found: Cluster, written: Cluster, schema: string): TailraceError {
  return new TailraceError(
    'WRONG_CLUSTER',
    `This log was last written on ${showCluster(written)}; this server is ${showCluster(found)}. ` +
      'It was restored from a backup, upgraded to another cluster, or a standby was promoted: if the newest transactions ' +
      'were lost with that, their offsets, positions and transaction ids are given out again, and consumers may hold ' +
      'messages that this log will never have. Compare the message ids that consumers hold with this log, move groups that ' +
      'are ahead of it back, and then accept this server: ' +
      `update ${schema}.relay_lease set system_identifier = '${found.systemIdentifier}', timeline = ${found.timeline} where name = '${LEASE_NAME}'`,
    { details: { found, written } },
  );
}

/** The statements on the row of the lease. */
export class LeaseTable {
  readonly #schema: string;
  readonly #channel: string;

  /** @param channel hears of a lease that was given up. */
  constructor(quotedSchema: string, channel: string) {
    this.#schema = quotedSchema;
    this.#channel = channel;
  }

  async look(session: Session): Promise<LeaseView> {
    const result = await session.query<ViewRow>({
      text: `select ${SYSTEM_IDENTIFIER_SQL} as here_identifier, ${TIMELINE_SQL} as here_timeline,
           l.epoch::text, l.holder, l.backend_pid, l.system_identifier, l.timeline, l.expires_at::text,
           (extract(epoch from l.expires_at - clock_timestamp()) * 1000)::float8 as remaining_ms,
           exists (select from pg_stat_activity a where a.pid = l.backend_pid) as connected
         from (values ($1::text)) wanted (name) left join ${this.#schema}.relay_lease l on l.name = wanted.name`,
      values: [LEASE_NAME],
    });
    return viewOf(result.rows[0]);
  }

  /** The epoch; `undefined` if somebody else was faster. Goes on after the highest epoch that ever appended. */
  async create(session: Session, holder: string, leaseMs: number, here: Cluster): Promise<string | undefined> {
    const result = await session.query<{ epoch: string }>({
      text: `insert into ${this.#schema}.relay_lease
           (name, epoch, holder, backend_pid, system_identifier, timeline, expires_at)
         values ($1, 1 + coalesce((select epoch from ${this.#schema}.relay_batch where name = $1
             order by seq desc limit 1), 0),
           $2, pg_backend_pid(), $3, $4, clock_timestamp() + $5 * interval '1 millisecond')
         on conflict do nothing returning epoch::text`,
      values: [LEASE_NAME, holder, here.systemIdentifier, here.timeline, leaseMs],
    });
    return result.rows[0]?.epoch;
  }

  /**
   * Takes a lease that is still as it was seen; returns the epoch, or `undefined` if it has changed. FOR UPDATE conflicts
   * with the key share lock of an append, so this waits for one that is under way; a plain update would not.
   */
  async takeOver(session: Session, from: LeaseRow, holder: string, leaseMs: number): Promise<string | undefined> {
    const result = await session.query<{ epoch: string }>({
      text: `with locked as materialized (
           select from ${this.#schema}.relay_lease where name = $1 and epoch = $2 and expires_at = $3::timestamptz for update)
         update ${this.#schema}.relay_lease l set epoch = l.epoch + 1, holder = $4, backend_pid = pg_backend_pid(),
           mode = null, mode_reason = null, expires_at = clock_timestamp() + $5 * interval '1 millisecond'
         from locked where l.name = $1 returning l.epoch::text`,
      values: [LEASE_NAME, from.epoch, from.expiresAt, holder, leaseMs],
    });
    return result.rows[0]?.epoch;
  }

  /** What is asked of the holder, if the lease is still of this epoch; then it lasts for another `leaseMs`. */
  async renew(session: Session, epoch: string, leaseMs: number): Promise<AskedOfHolder | undefined> {
    const result = await session.query<AskedRow>({
      text: `update ${this.#schema}.relay_lease set backend_pid = pg_backend_pid(),
           expires_at = clock_timestamp() + $3 * interval '1 millisecond' where name = $1 and epoch = $2
         returning ${this.#asked}`,
      values: [LEASE_NAME, epoch, leaseMs],
    });
    return askedOf(result.rows[0]);
  }

  /** What is asked of the holder, if the lease is still of this epoch. */
  async readAsked(session: Session, epoch: string): Promise<AskedOfHolder | undefined> {
    const result = await session.query<AskedRow>({
      text: `select ${this.#asked} from ${this.#schema}.relay_lease where name = $1 and epoch = $2`,
      values: [LEASE_NAME, epoch],
    });
    return askedOf(result.rows[0]);
  }

  get #asked(): string {
    return `layout::text, wanted_mode, mode is null as wants_report,
      exists (select from ${this.#schema}.relay_dead_letter where asked is not null) as wants_dead_letters`;
  }

  /** Writes down how the holder of this epoch reads. */
  async report(session: Session, epoch: string, mode: RelayMode, reason: string | undefined): Promise<void> {
    await session.query({
      text: `update ${this.#schema}.relay_lease set mode = $3, mode_reason = $4 where name = $1 and epoch = $2`,
      values: [LEASE_NAME, epoch, mode, reason ?? null],
    });
  }

  /** Lets the lease expire at once, if it is of this epoch, and tells those who wait for it. */
  async expire(session: Session, epoch: string): Promise<void> {
    await session.query({
      text: `with expired as (
           update ${this.#schema}.relay_lease set expires_at = clock_timestamp(), backend_pid = ${NO_BACKEND}
             where name = $1 and epoch = $2 returning 1)
         select pg_notify($3, '') from expired`,
      values: [LEASE_NAME, epoch, this.#channel],
    });
  }
}

interface AskedRow {
  layout: string;
  wanted_mode: RelayMode | null;
  wants_report: boolean;
  wants_dead_letters: boolean;
}

function askedOf(row: AskedRow | undefined): AskedOfHolder | undefined {
  if (row === undefined) return undefined;
  return {
    mode: row.wanted_mode ?? undefined,
    wantsReport: row.wants_report,
    wantsDeadLetters: row.wants_dead_letters,
    layout: row.layout,
  };
}

interface ViewRow {
  here_identifier: string;
  here_timeline: number | null;
  epoch: string | null;
  holder: string;
  backend_pid: number;
  system_identifier: string;
  timeline: number;
  expires_at: string;
  remaining_ms: number;
  connected: boolean;
}

function viewOf(row: ViewRow | undefined): LeaseView {
  if (row === undefined) throw new Error('The server answered no row.');
  const cluster =
    row.here_timeline === null ? undefined : { systemIdentifier: row.here_identifier, timeline: row.here_timeline };
  return { cluster, row: row.epoch === null ? undefined : leaseOf(row, row.epoch) };
}

function leaseOf(row: ViewRow, epoch: string): LeaseRow {
  return {
    epoch,
    holder: row.holder,
    backendPid: row.backend_pid,
    systemIdentifier: row.system_identifier,
    timeline: row.timeline,
    expiresAt: row.expires_at,
    remainingMs: row.remaining_ms,
    connected: row.connected,
  };
}
