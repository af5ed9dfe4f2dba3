import type pg from 'pg';
import { quoteSchema } from '../../postgres/schema-name.ts';
import { LEASE_NAME } from './lease.ts';
import { unknownTopic } from './topics.ts';

/** What a topic had when it was deleted. */
export interface DeletedTopic {
  readonly partitions: number;
  readonly records: bigint;
}

/**
 * Keeps maintenance from the log until the transaction of `client` ends. Waits for a round that is under way. Throws what
 * Postgres throws.
 */
export async function holdMaintenance(client: pg.ClientBase, schemaName: string): Promise<void> {
  await client.query('select pg_advisory_xact_lock(hashtext($1), hashtext($2))', ['tailrace_maintenance', schemaName]);
}

/**
 * Takes a topic out of the log, in the transaction of `client`, between two appends of whoever writes: the next one is refused
 * and routed again, and makes the topic anew if it has messages for it. From the commit on nobody reads the entries;
 * {@link deleteUnreadEntries} removes them. Needs the rights of the tables' owner. Throws what Postgres throws.
 *
 * @throws TailraceError `UNKNOWN_TOPIC`.
 */
export async function deleteTopic(client: pg.ClientBase, schemaName: string, topic: string): Promise<DeletedTopic> {
  const schema = quoteSchema(schemaName);
  await client.query(`lock table ${schema}.relay_lease in share row exclusive mode`); // so that no lease is made meanwhile
  await client.query(`select from ${schema}.relay_lease for update`);
  const { rows } = await client.query<{ partitions: number; records: string | null }>(
    `select count(*)::int as partitions, sum(greatest(0, tail.next_offset - p.start))::text as records
      from ${schema}.log_partition p
      left join lateral (
        select base + count as next_offset from ${schema}.log_entry where partition = p.id order by base desc limit 1
      ) tail on true
      where p.topic = $1`,
    [topic],
  );
  const [found] = rows;
  if (found === undefined || found.partitions === 0) throw unknownTopic(topic);
  await client.query(`delete from ${schema}.log_topic_growth where topic = $1`, [topic]);
  await client.query(`delete from ${schema}.log_partition where topic = $1`, [topic]);
  await client.query(`delete from ${schema}.log_topic where name = $1`, [topic]);
  await client.query(`update ${schema}.relay_lease set layout = layout + 1`);
  return { partitions: found.partitions, records: BigInt(found.records ?? 0) };
}

/**
 * Removes the entries of topics that were deleted, but for those behind the last checkpoint: they tell a relay that starts over
 * which messages it has appended. The next call removes these. Throws what Postgres throws.
 */
export async function deleteUnreadEntries(client: pg.ClientBase, schemaName: string): Promise<void> {
  const schema = quoteSchema(schemaName);
  // log_partition has a column of the name `partition` too.
  const isUnread = `not exists (select from ${schema}.log_partition p where p.id = unread.partition)`;
  await client.query(`delete from ${schema}.log_segment unread where ${isUnread}`);
  await client.query(
    `delete from ${schema}.log_entry unread where ${isUnread} and seq <= coalesce((select seq from ${schema}.relay_batch
      where name = $1 and checkpoint is not null order by seq desc limit 1), 0)`,
    [LEASE_NAME],
  );
}
