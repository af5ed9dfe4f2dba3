import type pg from 'pg';
import type { Delivery } from './delivery.ts';

const NONE: ReadonlySet<string> = new Set();

/** Tells the messages that a group has handled in an earlier generation of their partition. */
export class Replays {
  readonly #schema: string;
  readonly #group: string;

  /** `schema` is quoted. */
  constructor(schema: string, group: string) {
    this.#schema = schema;
    this.#group = group;
  }

  /**
   * The ids of those among the records of one partition. Asks the database only about records that an owner of before the
   * seek may have had in flight: what lies below is known by its offset, what lies above was appended later.
   */
  async among(tx: pg.ClientBase, items: readonly Delivery[]): Promise<ReadonlySet<string>> {
    const [first] = items;
    if (first === undefined || first.partition.replayUntil <= first.record.offset) return NONE;
    const { partition } = first;
    const { replayBelow, replayUntil, generation } = partition;
    const known = items.filter(({ record }) => partition.isReplay(record.offset));
    const open = items.filter(({ record }) => record.offset >= replayBelow && record.offset < replayUntil);
    const ids = new Set(known.map(({ record }) => record.messageId));
    if (open.length === 0) return ids;
    const { rows } = await tx.query<{ message_id: string }>(
      `select message_id::text from ${this.#schema}.processed_message
        where message_id = any($1::uuid[]) and consumer = $2 and generation < $3`,
      [open.map(({ record }) => record.messageId), this.#group, generation],
    );
    const found = new Set(rows.map(({ message_id }) => message_id));
    for (const { record } of open) if (found.has(record.messageId.toLowerCase())) ids.add(record.messageId);
    return ids;
  }
}
