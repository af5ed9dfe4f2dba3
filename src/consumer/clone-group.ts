import { TailraceError } from '../base/errors.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import { assertGiven, groupInUse, inGroup, type GroupDatabase } from './group-admin.ts';
import { isName } from './option-checks.ts';

/** What {@link cloneGroup} is to do. */
export interface CloneGroupOptions {
  /** The database that the group's handlers write to: a `pg.Pool`, or whatever hands out clients as it does. */
  readonly database: GroupDatabase;
  /** The group that is there. It goes on, and does not notice. */
  readonly from: string;
  /** The new group. */
  readonly to: string;
  /** The schema of tailrace's tables. @defaultValue 'tailrace' */
  readonly schema?: string;
}

/** What a new group has got. */
export interface ClonedGroup {
  /** Places in partitions. */
  readonly places: number;
  /** Messages that are set aside. */
  readonly parked: number;
}

/** What a message that is set aside is, whoever has it. */
const PARKED = `topic, partition, record_offset, message_id, key, type, kind, headers, payload, payload_bytes, occurred_at,
  expires_at, deliver_at, dead, blocks, due_at, reason, error, attempts, first_error, first_failed_at, last_failed_at, parked_at`;

/** What a message in the inbox is. */
const STORED = `topic, partition, record_offset, message_id, type, kind, key, headers, payload, is_text, bytes, occurred_at,
  expires_at, deliver_at, stored_at`;

/**
 * Makes a group that begins where another one is, to run beside it: it gets everything that comes after the other's stored
 * places (`cursorIntervalMs`), of that its own copy of what is stored, and what is set aside below them, in its order. What the other has handled beyond its places
 * it handles too: it knows nothing of the other's effects.
 *
 * @throws TailraceError `UNKNOWN_GROUP`; `GROUP_IN_USE`: there is a group `to`, or `from` is not one that runs for itself;
 * `INVALID_OPTION`; `NOT_MIGRATED`.
 */
export async function cloneGroup(options: CloneGroupOptions): Promise<ClonedGroup> {
  assertGiven('cloneGroup', options, ['from', 'to']);
  const { database, from, schema = DEFAULT_SCHEMA } = options;
  const to = newGroupName('cloneGroup', from, options.to);
  const place = { database, schema: quoteSchema(schema), schemaName: schema, group: from };
  return inGroup(place, async (locked) => {
    const { ephemeral, follows, handsOverTo } = await locked.state();
    if (ephemeral) throw groupInUse(from, 'is ephemeral: it goes with its process. Clone one that stays.');
    if (follows !== null || handsOverTo !== null) {
      throw groupInUse(
        from,
        `is in a cutover with ${follows ?? handsOverTo}. Clone the group that has the partitions.`,
      );
    }
    const insert = async (sql: string): Promise<number> => (await locked.client.query(sql, [from, to])).rowCount ?? 0;
    const made = await insert(
      `insert into ${locked.schema}.consumer_group (name) select $2 where $1 <> $2 on conflict do nothing`,
    );
    if (made === 0) throw groupInUse(to, 'is there already. Choose a name that no group has.');
    const places = await insert(
      `insert into ${locked.schema}.consumer_cursor (group_name, topic, partition, next_offset, opens_after, stored_from, stored_to)
        select $2, topic, partition, next_offset, opens_after, next_offset, greatest(next_offset, stored_to) from ${locked.schema}.consumer_cursor where group_name = $1`,
    );
    await insert(
      `insert into ${locked.schema}.inbox (group_name, ${STORED})
        select $2, ${STORED} from ${locked.schema}.inbox i where group_name = $1 and exists (
          select from ${locked.schema}.consumer_cursor c where c.group_name = $1 and c.topic = i.topic
            and c.partition = i.partition and i.record_offset >= c.next_offset and i.record_offset < c.stored_to)`,
    );
    // What lies at the places or beyond is read from the log, or the inbox.
    const parked = await insert(
      `insert into ${locked.schema}.parked_message (group_name, ${PARKED})
        select $2, ${PARKED} from ${locked.schema}.parked_message p where group_name = $1 and record_offset < (
          select next_offset from ${locked.schema}.consumer_cursor c
          where c.group_name = $1 and c.topic = p.topic and c.partition = p.partition) on conflict do nothing`,
    );
    return { places, parked };
  });
}

/** @throws TailraceError `INVALID_OPTION`. */
export function newGroupName(what: string, from: string, to: string): string {
  if (from !== to && isName(to)) return to;
  const expected = from === to ? 'another name than that of the group' : '1 to 200 characters';
  throw new TailraceError(
    'INVALID_OPTION',
    `${what}: to is ${JSON.stringify(to.slice(0, 200))}. Expected ${expected}.`,
  );
}
