import type pg from 'pg';
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
 */
export class CheckpointClock {
  readonly #client: pg.ClientBase;
  readonly #outbox: string;
  /** In the log, but not known to be visible; while there are any, no snapshot is taken. */
  #unverified: readonly number[];
  /** In the log and not seen by the last snapshot that was used. */
  #recent: { position: number; xid: number }[] = [];
  #snapshot: Snapshot;
  #pending: { snapshot: Snapshot; insertLsn: Lsn } | undefined;

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

  /** Takes a snapshot, unless one waits already, or rows that the log holds are not visible yet. */
  async tick(): Promise<void> {
    if (this.#pending !== undefined) return;
    const result = await this.#client.query<{ snapshot: string; insert_lsn: string; visible: string }>(
      `with s as materialized (select pg_current_snapshot()::text as snapshot)
        select s.snapshot, (select count(*) from ${this.#outbox} where position = any($1::bigint[])) as visible,
          pg_current_wal_insert_lsn()::text as insert_lsn from s`,
      [this.#unverified],
    );
    const row = result.rows[0];
    if (row === undefined || Number(row.visible) < this.#unverified.length) return;
    this.#unverified = [];
    this.#pending = { snapshot: Snapshot.parse(row.snapshot), insertLsn: parseLsn(row.insert_lsn) };
  }

  /** Notes rows that are about to be appended; answers the checkpoint that holds once they are, if one does. */
  append({ rows, xids, end }: StreamedRows): Checkpoint | undefined {
    const floor = this.#pending?.snapshot ?? this.#snapshot;
    xids.forEach((xid, n) => {
      if (!floor.sees(xid)) this.#recent.push({ position: rows.ids[n] ?? 0, xid });
    });
    if (this.#pending === undefined || end < this.#pending.insertLsn) return undefined;
    const { snapshot } = this.#pending;
    this.#pending = undefined;
    this.#snapshot = snapshot;
    this.#recent = this.#recent.filter(({ xid }) => !snapshot.sees(xid));
    return { snapshot, beyond: this.#recent.map(({ position }) => position) };
  }
}
