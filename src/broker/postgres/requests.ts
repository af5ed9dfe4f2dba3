import { keyHash } from '../partitioner.ts';
import type { DeadLetters, RelayMode, RelayRequests } from '../log.ts';
import { LEASE_NAME, type AskedOfHolder, type LeaseTable } from './lease.ts';
import type { Session } from './session.ts';

/** The payload of a notification on the lease's channel that says that operators ask for something. */
export const ASKED = 'asked';

export interface RequestsParts {
  readonly quotedSchema: string;
  readonly epoch: string;
  readonly table: LeaseTable;
  /** The connection that appends. */
  readonly session: Session;
  /** Repeats what fails for a reason that passes, as long as the lease holds. */
  readonly retrying: <Result>(work: () => Promise<Result>) => Promise<Result>;
  /** The last batch with a stored checkpoint. */
  readonly checkpointSeq: () => number;
}

const PAGE = 1_000;

/** What operators ask of the holder of the lease, and what it does to the rows in which they ask. */
export class PostgresRelayRequests implements RelayRequests {
  readonly #parts: RequestsParts;
  #asked: AskedOfHolder;

  constructor(parts: RequestsParts, asked: AskedOfHolder) {
    this.#parts = parts;
    this.#asked = asked;
  }

  get mode(): RelayMode | undefined {
    return this.#asked.mode;
  }

  get hasDeadLetters(): boolean {
    return this.#asked.wantsDeadLetters;
  }

  /** Takes over what the row of the lease says now; answers whether there is something to do. */
  note(asked: AskedOfHolder): boolean {
    const isOther = asked.mode !== this.#asked.mode;
    this.#asked = asked;
    return isOther || asked.wantsReport || asked.wantsDeadLetters;
  }

  async report({ mode, reason }: { readonly mode: RelayMode; readonly reason?: string }): Promise<void> {
    const { table, session, epoch, retrying } = this.#parts;
    await retrying(() => table.report(session, epoch, mode, reason));
  }

  /** What is not visible in the outbox yet waits for the next time. */
  async deadLettersToRetry(): Promise<DeadLetters> {
    const { session, quotedSchema: schema, retrying } = this.#parts;
    const { rows } = await retrying(() =>
      session.query<{ position: string; topic: string; key: string | null }>(
        `select d.position, o.topic, o.key from ${schema}.relay_dead_letter d
          join ${schema}.outbox o on o.position = d.position where d.asked = 'retry' order by d.position limit ${PAGE}`,
      ),
    );
    return {
      ids: rows.map(({ position }) => Number(position)),
      topics: rows.map(({ topic }) => topic),
      keyHashes: rows.map(({ key }) => keyHash(key)),
    };
  }

  /**
   * Only what a stored checkpoint covers: until then the row is what keeps a relay that starts over from taking the message
   * for one that it has not seen.
   */
  async discardDeadLetters(): Promise<readonly number[]> {
    const { session, quotedSchema: schema, epoch, checkpointSeq, retrying } = this.#parts;
    const { rows } = await retrying(() =>
      session.query<{ position: string }>({
        text: `with fence as materialized (
            select 1 from ${schema}.relay_lease where name = $1 and epoch = $2 for key share
          ), discarded as materialized (
            select position from ${schema}.relay_dead_letter, fence
              where asked = 'discard' and seq <= $3 order by position limit ${PAGE}
          )
          delete from ${schema}.relay_dead_letter d using discarded where d.position = discarded.position
            returning d.position`,
        values: [LEASE_NAME, epoch, checkpointSeq()],
      }),
    );
    return rows.map(({ position }) => Number(position)).sort((a, b) => a - b);
  }
}
