import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { quoteSchema } from '../postgres/schema-name.ts';
import { LockedGroup } from './group-admin.ts';
import { ALL_MEMBERS, GROUP_CHANNEL } from './group-tables.ts';

/** What groups had of a topic. */
export interface ForgottenTopic {
  /** Groups that had a place in it, by name. */
  readonly groups: readonly string[];
  /** Messages that were set aside. */
  readonly parked: number;
}

/**
 * Lets all groups of a database forget a topic, in the transaction of `client`: their places in it, and what was stored or set aside. What
 * their members have under way there cannot commit any more. Needs the rights of the tables' owner. Throws what Postgres
 * throws.
 *
 * @param force also while members read it.
 * @throws TailraceError `GROUP_IN_USE`: members read it, static ones that are away counted.
 */
export async function forgetTopic(
  client: pg.PoolClient,
  schemaName: string,
  topic: string,
  force: boolean,
): Promise<ForgottenTopic> {
  const schema = quoteSchema(schemaName);
  const groups = await lockGroupsOf(client, schema, topic);
  const readers = await readersOf(client, schema, topic);
  if (readers.length > 0 && !force) throw inUse(topic, readers);
  for (const group of groups) {
    const locked = new LockedGroup(client, schema, group);
    await locked.fence(topic, await locked.placesIn(topic));
  }
  await client.query(
    `update ${schema}.consumer_group g set first_epoch = greatest(g.first_epoch, c.epoch)
      from (select group_name, max(epoch) as epoch from ${schema}.consumer_cursor where topic = $1 group by group_name) c
      where c.group_name = g.name`,
    [topic],
  );
  await client.query(`delete from ${schema}.suspect_attempt where topic = $1`, [topic]);
  const parked = await client.query(`delete from ${schema}.parked_message where topic = $1`, [topic]);
  await client.query(`delete from ${schema}.inbox where topic = $1`, [topic]);
  await client.query(`delete from ${schema}.consumer_cursor where topic = $1`, [topic]);
  for (const group of groups) {
    await client.query('select pg_notify($1, $2)', [GROUP_CHANNEL, JSON.stringify({ group, members: ALL_MEMBERS })]);
  }
  return { groups, parked: parked.rowCount ?? 0 };
}

/** The locks are those that members take at each heartbeat; in one order, so that two of us do not wait for each other. */
async function lockGroupsOf(client: pg.ClientBase, schema: string, topic: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select name from ${schema}.consumer_group g
      where exists (select from ${schema}.consumer_cursor c where c.group_name = g.name and c.topic = $1)
        or exists (select from ${schema}.consumer_member m where m.group_name = g.name and $1 = any(m.topics))
      order by name for update`,
    [topic],
  );
  return rows.map(({ name }) => name);
}

async function readersOf(client: pg.ClientBase, schema: string, topic: string): Promise<string[]> {
  const { rows } = await client.query<{ reader: string }>(
    `select group_name || ' (' || member_id || ')' as reader from ${schema}.consumer_member
      where $1 = any(topics) and expires_at > clock_timestamp() order by 1`,
    [topic],
  );
  return rows.map(({ reader }) => reader);
}

function inUse(topic: string, readers: readonly string[]): TailraceError {
  return new TailraceError(
    'GROUP_IN_USE',
    `The topic ${topic} is read by ${readers.length} members of groups: ${readers.slice(0, 5).join(', ')}. Expected none. Stop them first, or delete it by force: then they wait for a new topic of this name.`,
    { details: { topic, members: readers.length } },
  );
}
