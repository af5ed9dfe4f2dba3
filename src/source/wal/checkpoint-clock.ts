import type pg from 'pg';
import { TailraceError } from '../../base/errors.ts';
import { parseLsn, type Lsn } from '../../base/lsn.ts';
import { Snapshot } from '../../postgres/snapshot.ts';
import type { Checkpoint } from '../place.ts';
import type { StreamedRows } from './outbox-stream.ts';

/**
 * Makes checkpoints while the WAL is streamed. A snapshot is taken, and after it the WAL's insert position: once everything
 * below that position is in the log, so is everything that the snapshot sees. What the log holds beyond the snapshot is kept
 * by position.
 *
 * Taken the other way round, the snapshot could see a commit above the position, and a later sweep would miss it.
 *
 * Each checkpoint is an audit too: of the rows that its snapshot sees and the last one did not, as many must have come by
 * the WAL as the outbox holds. A server leaves rows out without a word where the publication is altered, dropped (from
 * Postgres 17 on), or a partition is not logged.
 */
export class CheckpointClock {
  readonly #client: pg.ClientBase;
  readonly #outbox: string;
  /**
   * In the log, but not known to be visible; while there are any, no snapshot is taken. A row whose partition has left the
   * outbox was visible: only then may it leave.
   */
  #unverified: readonly number[];
  /** In the log and not seen by the last snapshot that was used. */
  #recent: { position: number; xid: number }[] = [];
  #snapshot: Snapshot;
  /** `expected`: how many rows it sees that `#snapshot` does not. `came`: how many of them came since it was taken. */
  #pending: { snapshot: Snapshot; insertLsn: Lsn; expected: number; came: number } | undefined;

  #isTaking = false;

  constructor(client: pg.ClientBase, quotedSchema: string, from: Snapshot, unverified: readonly number[]) {
    this.#client = client;
    this.#outbox = `${quotedSchema}.outbox`;
    this.#snapshot = from;
    this.#unverified = unverified;
  }

  /** Where the stream must have come to for the snapshot that waits. */
  get awaits(): Lsn | undefined {
    return this.#pending?.insertLsn;
  }

  /**
   * Takes a snapshot, unless one waits or is being taken already, or rows that the log holds are not visible yet. Where no
   * checkpoint `isDue` it is used only if it sees rows that the last one did not: the stream is to bring them, or leaves them
   * out, and then that has to be known before it brings later ones.
   */
  async tick(isDue = true): Promise<void> {
    if (this.#pending !== undefined || this.#isTaking) return;
    this.#isTaking = true;
    try {
      await this.#takeSnapshot(isDue);
    } finally {
      this.#isTaking = false;
    }
  }

  async #takeSnapshot(isDue: boolean): Promise<void> {
    const result = await this.#client.query<{ snapshot: string; insert_lsn: string; visible: string; fresh: string }>(
      `with s as materialized (select pg_current_snapshot()::text as snapshot),
        bound as materialized (
          select coalesce(substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \\(''(\\d+)''\\)')::bigint, 0) as low,
            coalesce(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \\(''(\\d+)''\\)')::bigint, 9223372036854775807) as high
          from pg_inherits i join pg_class c on c.oid = i.inhrelid
          where i.inhparent = $4::regclass and not i.inhdetachpending)
        select s.snapshot, (select count(*) from ${this.#outbox} where position = any($1::bigint[]))
            + (select count(*) from unnest($1::bigint[]) p
              where not exists (select from bound where p >= low and p < high)) as visible,
          (select count(*) from ${this.#outbox} o
            where (o.tx >= $2 or o.tx = any($3::bigint[])) and o.position <> all($1::bigint[])) as fresh,
          pg_current_wal_insert_lsn()::text as insert_lsn from s`,
      [this.#unverified, this.#snapshot.xmax, this.#snapshot.inProgress, this.#outbox],
    );
    const row = result.rows[0];
    if (row === undefined || Number(row.visible) < this.#unverified.length) return;
    if (!isDue && row.fresh === '0') return;
    this.#unverified = [];
    const snapshot = Snapshot.parse(row.snapshot);
    this.#pending = { snapshot, insertLsn: parseLsn(row.insert_lsn), expected: Number(row.fresh), came: 0 };
  }

  /**
   * Notes rows that are about to be appended; answers the checkpoint that holds once they are, if one does.
   *
   * @throws TailraceError `REPLICATION_FAILED`: rows that were committed before did not come.
   */
  append({ rows, xids, end }: StreamedRows): Checkpoint | undefined {
    const pending = this.#pending;
    const floor = pending?.snapshot ?? this.#snapshot;
    xids.forEach((xid, n) => {
      if (!floor.sees(xid)) this.#recent.push({ position: rows.ids[n] ?? 0, xid });
      else if (pending !== undefined && !this.#snapshot.sees(xid)) pending.came += 1;
    });
    if (pending === undefined || end < pending.insertLsn) return undefined;
    const { snapshot, expected, came } = pending;
    const beyond = this.#recent.filter(({ xid }) => !snapshot.sees(xid));
    assertNoneMissing(expected, came + this.#recent.length - beyond.length);
    this.#pending = undefined;
    this.#snapshot = snapshot;
    this.#recent = beyond;
    return { snapshot, beyond: beyond.map(({ position }) => position) };
  }
}

/** More may have come than are there: somebody has deleted rows. */
function assertNoneMissing(expected: number, came: number): void {
  if (came >= expected) return;
  throw new TailraceError(
    'REPLICATION_FAILED',
    `Of ${expected} new messages in the outbox, ${came} came by the WAL, expected all. Look whether the publication was altered, or a partition of the outbox is UNLOGGED. The outbox is swept.`,
    { retryable: true },
  );
}
