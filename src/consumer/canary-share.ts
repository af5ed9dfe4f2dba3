import { TailraceError } from '../base/errors.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../postgres/schema-name.ts';
import { canaryShare } from './canaries.ts';
import { assertGiven, groupInUse, inGroup, type GroupDatabase } from './group-admin.ts';

/** What {@link setCanaryShare} is to do. */
export interface CanaryShareOptions {
  /** The database that the group's handlers write to: a `pg.Pool`, or whatever hands out clients as it does. */
  readonly database: GroupDatabase;
  readonly group: string;
  /** What members that are canaries are to have of the partitions: 0 to 100. */
  readonly percent: number;
  /** The schema of tailrace's tables. @defaultValue 'tailrace' */
  readonly schema?: string;
}

/** What comes of it. */
export interface CanaryShare {
  readonly percent: number;
  /** Live members that are canaries, and those that are not. */
  readonly canaries: number;
  readonly others: number;
  readonly partitions: number;
  /** How many of them canaries get while both kinds of members are there and handle all topics. */
  readonly ofCanaries: number;
}

/**
 * Gives the canaries of a group a share of its partitions, and takes it back with 0. It is rounded, but at least one
 * partition, and below 100 not the last one of the others. Partitions move as ever: each is handed over in good order.
 *
 * @throws TailraceError `INVALID_OPTION`, `UNKNOWN_GROUP`, `NOT_MIGRATED`; `GROUP_IN_USE`: the group is ephemeral, or a
 * work queue.
 */
export async function setCanaryShare(options: CanaryShareOptions): Promise<CanaryShare> {
  assertGiven('setCanaryShare', options, ['group']);
  const { database, group, percent, schema = DEFAULT_SCHEMA } = options;
  if (!(Number.isInteger(percent) && percent >= 0 && percent <= 100)) {
    throw new TailraceError(
      'INVALID_OPTION',
      `setCanaryShare: percent is ${percent}. Expected a whole number from 0 to 100.`,
    );
  }
  return inGroup({ database, schema: quoteSchema(schema), schemaName: schema, group }, async (locked) => {
    const { ephemeral, mode } = await locked.state();
    if (ephemeral) throw groupInUse(group, 'is ephemeral: it has one member, and no canaries.');
    if (mode === 'work-queue') {
      throw groupInUse(
        group,
        'is a work queue, whose members share all partitions. Canaries have a share of the partitions.',
      );
    }
    await locked.client.query(`update ${locked.schema}.consumer_group set canary_percent = $2 where name = $1`, [
      group,
      percent,
    ]);
    const { rows } = await locked.client.query<{ canaries: number; others: number; partitions: number }>(
      `select count(*) filter (where canary)::int as canaries, count(*) filter (where not canary)::int as others,
          (select count(*)::int from ${locked.schema}.consumer_cursor where group_name = $1) as partitions
        from ${locked.schema}.consumer_member where group_name = $1 and expires_at > clock_timestamp()`,
      [group],
    );
    const { canaries = 0, others = 0, partitions = 0 } = rows[0] ?? {};
    return { percent, canaries, others, partitions, ofCanaries: canaryShare(partitions, percent) };
  });
}
