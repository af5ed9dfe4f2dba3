import type pg from 'pg';
import { quoteSchema } from '../../postgres/schema-name.ts';
import type { RelayMode } from '../log.ts';
import { channelOf } from './channels.ts';
import { LEASE_NAME } from './lease.ts';
import { ASKED } from './requests.ts';

type Client = Pick<pg.ClientBase, 'query'>;

/** The relay that holds the lease, or held it last, as its row shows it. */
export interface RelayStanding {
  readonly holder: string;
  /** Whether it holds the lease now. */
  readonly isHeld: boolean;
  /** The mode that was asked for; `null`: the choice is the relay's. */
  readonly wantedMode: RelayMode | null;
  /** How it reads, and why not as it was asked to; `null` until it has said so. */
  readonly mode: RelayMode | null;
  readonly reason: string | null;
}

/** `undefined`: no relay has ever run. */
export async function readRelayStanding(client: Client, schema: string): Promise<RelayStanding | undefined> {
  const { rows } = await client.query<RelayStanding>(
    `select holder, expires_at > clock_timestamp() as "isHeld", wanted_mode as "wantedMode", mode, mode_reason as reason
      from ${quoteSchema(schema)}.relay_lease where name = $1`,
    [LEASE_NAME],
  );
  return rows[0];
}

/** Asks the relay of a log, whichever it is, to read in a mode; `undefined` leaves the choice to it again. */
export async function askForMode(client: Client, schema: string, mode: RelayMode | undefined): Promise<void> {
  await client.query(
    `with asked as (update ${quoteSchema(schema)}.relay_lease set wanted_mode = $2, mode = null, mode_reason = null
      where name = $1 returning 1) select pg_notify($3, $4) from asked`,
    [LEASE_NAME, mode ?? null, channelOf(schema, 'lease'), ASKED],
  );
}

/** What can be done with dead letters of the relay. */
export type DeadLetterAction = 'retry' | 'discard';

/**
 * Asks the relay to route dead letters again, or to forget them. What was asked stands until it is done: the next relay does
 * it, if none runs.
 *
 * @param positions outbox positions as text.
 * @returns those for which this now is asked; others are no dead letters, or something was asked for them before.
 */
export async function askForDeadLetters(
  client: Client,
  schema: string,
  action: DeadLetterAction,
  positions: readonly string[],
): Promise<string[]> {
  const { rows } = await client.query<{ position: string }>(
    `with asked as (update ${quoteSchema(schema)}.relay_dead_letter
        set asked = $1, asked_by = session_user, asked_at = clock_timestamp()
        where position = any($2::bigint[]) and asked is null returning position),
      told as materialized (select pg_notify($3, $4) where exists (select from asked))
      select position::text from asked left join told on true order by asked.position`,
    [action, positions, channelOf(schema, 'lease'), ASKED],
  );
  return rows.map(({ position }) => position);
}
