import { TailraceError } from '../base/errors.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import { assertFlag, assertGiven, inGroup, type GroupDatabase, type LockedGroup } from './group-admin.ts';

/** What {@link deleteGroup} is to do. */
export interface DeleteGroupOptions {
  /** The database that the group's handlers write to: a `pg.Pool`, or whatever hands out clients as it does. */
  readonly database: GroupDatabase;
  readonly group: string;
  /** Also while members are there: they lose everything, and begin as a new group. @defaultValue false */
  readonly force?: boolean;
  /** The schema of tailrace's tables. @defaultValue 'tailrace' */
  readonly schema?: string;
}

/** What was deleted of a group. */
export interface DeletedGroup {
  /** Members that were there. */
  readonly members: number;
  /** Places in partitions. */
  readonly places: number;
  /** Messages that it knew as handled. */
  readonly processed: number;
  /** Messages that were set aside. */
  readonly parked: number;
  /** Messages in its inbox. */
  readonly stored: number;
}

/**
 * Forgets a group: its places, what it has handled, and what was stored or set aside. A group of the same name begins anew. Reads all of
 * `processed_message`, so it takes its time where that is large. Needs the rights of the tables' owner.
 *
 * @throws TailraceError `UNKNOWN_GROUP`; `GROUP_IN_USE`: members are there, static ones that are away counted;
 * `INVALID_OPTION`; `NOT_MIGRATED`.
 */
export async function deleteGroup(options: DeleteGroupOptions): Promise<DeletedGroup> {
  assertGiven('deleteGroup', options, ['group']);
  const { database, group, force = false, schema = DEFAULT_SCHEMA } = options;
  assertFlag('deleteGroup', 'force', force);
  return inGroup({ database, schema: quoteSchema(schema), schemaName: schema, group }, async (locked) => {
    const members = await locked.liveMembers();
    if (members.length > 0 && !force) throw inUse(group, members);
    await fenceAll(locked); // no handler's transaction commits from here on
    const remove = async (table: string, column: string): Promise<number> => {
      const { rowCount } = await locked.client.query(`delete from ${locked.schema}.${table} where ${column} = $1`, [
        group,
      ]);
      return rowCount ?? 0;
    };
    await remove('suspect_attempt', 'group_name');
    const stored = await remove('inbox', 'group_name');
    const parked = await remove('parked_message', 'group_name');
    const processed = await remove('processed_message', 'consumer');
    await remove('processed_late', 'consumer');
    await remove('processed_stray', 'consumer');
    await rememberEpochs(locked);
    const places = await remove('consumer_cursor', 'group_name');
    await remove('consumer_group', 'name');
    return { members: members.length, places, processed, parked, stored };
  });
}

async function fenceAll(locked: LockedGroup): Promise<void> {
  for (const topic of await locked.topics()) await locked.fence(topic, await locked.placesIn(topic));
}

/** A group of this name begins above them, or what a former member has under way could commit in it. */
async function rememberEpochs({ client, schema, group }: LockedGroup): Promise<void> {
  await client.query(
    `insert into ${schema}.former_group as f (name, last_epoch)
      select name, greatest(first_epoch, (select max(epoch) from ${schema}.consumer_cursor where group_name = $1))
        from ${schema}.consumer_group where name = $1
      on conflict (name) do update set last_epoch = greatest(f.last_epoch, excluded.last_epoch)`,
    [group],
  );
}

function inUse(group: string, members: readonly string[]): TailraceError {
  return new TailraceError(
    'GROUP_IN_USE',
    `The group ${group} has ${members.length === 1 ? 'a member' : `${members.length} members`}: ${members.slice(0, 5).join(', ')}. Expected none. Stop them first, or delete it by force: then they begin as a new group.`,
    { details: { group, members: members.length } },
  );
}
