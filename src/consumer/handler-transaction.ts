import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import { pause } from '../base/signal.ts';
import { isSameCluster, type Cluster } from '../base/cluster.ts';
import { CLUSTER_SQL, clusterOf, type ClusterRow } from '../postgres/cluster.ts';
import { isTransient, sqlStateOf } from '../postgres/sqlstate.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import { AbandonedHandler } from './handler-call.ts';
import { HandlerClient } from './handler-client.ts';
import { lendClient } from './lent-client.ts';
import { elsewhere } from './origin.ts';
import type { ConsumerSettings } from './options.ts';
import { RoundTrips, type Statement, type TextRows } from '../postgres/round-trip.ts';

/** Raised by `assert_assignment` and `assert_range`: another member owns the partition now. */
const ASSIGNMENT_ENDED = 'TR001';
/** Raised by `advance_cursor`: the group's place is past these records. */
const ALREADY_PASSED = 'TR002';
/** The server ended a session whose transaction stood idle for too long. */
const IDLE_TOO_LONG = '25P03';

/** How a transaction ended. */
export type TransactionResult =
  /** Committed. `handled` messages were new, the rest had been handled before. */
  | { readonly outcome: 'committed'; readonly handled: number }
  /** Undone: the partition is another member's. */
  | { readonly outcome: 'assignment-lost' }
  /** Undone because of the handler, and another attempt may end the same way; or because of the database, which will pass. */
  | { readonly outcome: 'failed'; readonly by: 'handler' | 'database'; readonly error: unknown };

/** What makes a transaction happen once. */
export type Claim =
  /** The rows that say "handled", of messages from the log. */
  | {
      readonly of: 'log';
      readonly messageIds: readonly string[];
      /** Whether the database's time is needed. */
      readonly asksTime: boolean;
    }
  /** The row of a parked message, which is taken out: a statement that returns its message id. */
  | { readonly of: 'parked'; readonly sql: (client: pg.ClientBase) => string }
  /** The group's place in the partition, which moves from an offset, or what lies before it, to another. */
  | {
      readonly of: 'cursor';
      readonly from: bigint;
      readonly to: bigint;
      /** Counted as handled. */
      readonly messages: number;
      readonly asksTime: boolean;
    }
  /** Nothing: the work sees to it itself, or it was claimed before. */
  | { readonly of: 'nothing' };

/** What a transaction has begun with. */
export interface Begun {
  /** Answers true for a new message, once. */
  readonly claim: (messageId: string) => boolean;
  /** The database's time in Unix milliseconds, if it was asked for. */
  readonly nowMs: number | undefined;
}

/** What happens in a transaction, between its first row and its commit. */
export type TransactionWork = (tx: pg.PoolClient, begun: Begun) => unknown;

/** A client whose transaction is being committed, for another one to begin behind it in the same round trip. */
interface Offer {
  readonly client: HandlerClient;
  successor: Successor | undefined;
}

interface Successor {
  readonly client: HandlerClient;
  /** What it begins with. */
  readonly statements: readonly Statement[];
  readonly answers: PromiseWithResolvers<TextRows[]>;
}

type TransactionSettings = Pick<
  ConsumerSettings,
  'database' | 'schema' | 'group' | 'handlerIdleMs' | 'delivery' | 'ephemeral'
>;

/** What transactions ask and tell. */
export interface TransactionEvents {
  /** What this process knows by itself; what it cannot know, the database checks. */
  mayCommit(partition: AssignedPartition): boolean;
  /** A client of the pool leads to another cluster or timeline than the one on which the partition was taken. */
  elsewhere(): void;
}

const IN_FAILED_TRANSACTION = '25P02';

const MESSAGE_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

const BEGIN: Statement = { name: 'tailrace begin', text: 'begin isolation level read committed', values: [] };
const COMMIT: Statement = { name: 'tailrace commit', text: 'commit', values: [] };
const NOW: Statement = {
  name: 'tailrace now',
  text: 'select (extract(epoch from clock_timestamp()) * 1000)::text',
  values: [],
};

/**
 * What is claimed before its handler is called has to outlive a crash of the server, whatever the database does with other
 * commits.
 */
const DURABLE: Statement = {
  name: 'tailrace durable',
  text: `select set_config('synchronous_commit', case current_setting('synchronous_commit')
    when 'off' then 'on' else current_setting('synchronous_commit') end, true)`,
  values: [],
};

/** Answers the ids that are new. One by itself costs the server a third less than a list of one. */
function claimSql(schema: string, isOne: boolean): string {
  const rows = isOne ? 'select $1::uuid, $2::text, $3::int' : 'select id, $2::text, $3::int from unnest($1::uuid[]) id';
  return `insert into ${schema}.processed_message (message_id, consumer, generation)
    ${rows} on conflict do nothing returning message_id::text`;
}

/**
 * Goes last before COMMIT but for {@link assertSql}, which has to see what was committed before the lock was had: two
 * statements, since each has a snapshot of its own. The lock is the one of `assert_assignment`.
 */
const LOCK_SQL = `select pg_advisory_xact_lock_shared(
  hashtext('tailrace_assignment'), hashtext($1::text || '/' || $2::text || '/' || $3::text))::text`;

/** Calls the function, which raises, only where the assignment has ended: as a plain query it costs half. */
function assertSql(schema: string): string {
  return `select coalesce(
    (select 'owned' from ${schema}.consumer_cursor
      where group_name = $1::text and topic = $2::text and partition = $3::int and epoch = $4::bigint),
    ${schema}.assert_assignment($1::text, $2::text, $3::int, $4::bigint)::text)`;
}

/** The same for a record of a range. */
function assertRangeSql(schema: string): string {
  return `select ${schema}.assert_range($1::uuid)::text`;
}

/** Goes last in its place where the group's own place moves. */
function advanceSql(schema: string): string {
  return `select ${schema}.advance_cursor($1::text, $2::text, $3::int, $4::bigint, $5::bigint, $6::bigint)::text`;
}

/**
 * Runs the transactions that make effects happen once: the rows that say "handled" go in first, together with BEGIN; the
 * check that the partition is still this member's goes last, together with COMMIT. So a message that was handled before is
 * not handled again, and nothing commits after another member has taken the partition.
 */
export class HandlerTransactions {
  readonly #settings: TransactionSettings;
  readonly #events: TransactionEvents;
  readonly #roundTrips = new RoundTrips();
  readonly #open = new Map<HandlerClient, AssignedPartition>();
  #offer: Offer | undefined;
  /** Where clients lead that are connected to their server directly. */
  readonly #clusters = new WeakMap<object, Cluster>();

  constructor(settings: TransactionSettings, events: TransactionEvents) {
    this.#settings = settings;
    this.#events = events;
  }

  /**
   * Runs `work` unless there is nothing to claim any more. Never throws. `onCommitting` is called before the commit is sent;
   * what is run in that same tick begins behind it in one round trip, on the same client.
   */
  async run(
    partition: AssignedPartition,
    claim: Claim,
    work: TransactionWork,
    onCommitting?: () => void,
  ): Promise<TransactionResult> {
    const behind = this.#succeed(partition, claim);
    if (behind !== undefined) {
      const ended = await this.#on(behind.client, partition, async (client) => {
        const answers = await begunBehind(behind);
        return answers && this.#runOn(client, partition, claim, work, answers, onCommitting);
      });
      if (ended !== undefined) return ended;
    }
    return this.#on(HandlerClient.take(this.#settings.database), partition, async (client) => {
      if (!this.#events.mayCommit(partition)) return { outcome: 'assignment-lost' };
      const answers = await (claim.of === 'parked'
        ? beginParked(client.tx, claim.sql(client.tx), this.#settings.handlerIdleMs)
        : this.#roundTrip(client.tx, this.#beginning(partition, claim)));
      return this.#runOn(client, partition, claim, work, answers, onCommitting);
    });
  }

  /** Gives the client back in the end, whatever comes of it. Never throws. */
  async #on<Result extends TransactionResult | undefined>(
    taking: HandlerClient | Promise<HandlerClient>,
    partition: AssignedPartition,
    use: (client: HandlerClient) => Promise<Result>,
  ): Promise<Result | TransactionResult> {
    let client: HandlerClient | undefined;
    try {
      client = taking instanceof HandlerClient ? taking : await taking;
      this.#open.set(client, partition);
      return await use(client);
    } catch (error) {
      return { outcome: 'failed', by: 'database', error: client?.lost ?? error };
    } finally {
      if (client !== undefined) {
        this.#open.delete(client);
        await client.giveBack();
      }
    }
  }

  /** The client that is offered at this moment, if it will do. */
  #succeed(partition: AssignedPartition, claim: Claim): Successor | undefined {
    const offer = this.#offer;
    if (offer === undefined || offer.successor !== undefined || claim.of === 'parked') return undefined;
    const cluster = this.#clusters.get(offer.client.tx);
    if (cluster === undefined || !isSameCluster(cluster, partition.origin.database)) return undefined;
    if (!this.#events.mayCommit(partition)) return undefined;
    offer.successor = {
      client: offer.client.handOver(),
      statements: this.#beginning(partition, claim),
      answers: Promise.withResolvers(),
    };
    return offer.successor;
  }

  /** Offers a client to what begins now. Others who wait for a client of the pool are not kept waiting. */
  #successorOn(client: HandlerClient, onCommitting: (() => void) | undefined): Successor | undefined {
    const { database } = this.#settings;
    if (onCommitting === undefined || (database.waitingCount ?? 0) > 0) return undefined;
    if (!this.#roundTrips.canRunBoth(client.tx, this.#clusters.has(client.tx))) return undefined;
    const offer: Offer = { client, successor: undefined };
    this.#offer = offer;
    try {
      onCommitting();
    } finally {
      this.#offer = undefined;
    }
    return offer.successor;
  }

  /** Runs single statements that commit by themselves, on a client that leads to where a partition was taken. */
  async ask<Answer>(partition: AssignedPartition, use: (client: pg.PoolClient) => Promise<Answer>): Promise<Answer> {
    const client = await HandlerClient.take(this.#settings.database);
    this.#open.set(client, partition);
    try {
      if (!(await this.#leadsTo(client.tx, partition.origin.database))) {
        client.destroy();
        this.#events.elsewhere();
        throw elsewhere();
      }
      const answer = await use(client.tx);
      client.isClean = true;
      return answer;
    } finally {
      this.#open.delete(client);
      await client.giveBack();
    }
  }

  /** Cuts off the transactions of a partition, so that they hold up nobody: none of them may commit any more. */
  cutOff(partition: AssignedPartition): void {
    for (const [client, of] of this.#open) if (of === partition) client.destroy();
  }

  async #runOn(
    client: HandlerClient,
    partition: AssignedPartition,
    claim: Claim,
    work: TransactionWork,
    answers: readonly TextRows[],
    onCommitting: (() => void) | undefined,
  ): Promise<TransactionResult> {
    const { fresh, nowMs } = this.#begunWith(claim, answers);
    if (!(await this.#leadsTo(client.tx, partition.origin.database))) {
      client.destroy(); // it may lead to a server that was replaced
      this.#events.elsewhere();
      return { outcome: 'assignment-lost' };
    }
    const handled = claim.of === 'cursor' ? claim.messages : (fresh?.size ?? 0);
    if (fresh?.size === 0) return { outcome: 'committed', handled };
    try {
      const begun: Begun = { claim: (messageId) => fresh?.delete(messageId.toLowerCase()) ?? true, nowMs };
      await lent(client.tx, (tx) => work(tx, begun));
      assertInTransaction(client);
      if (!this.#events.mayCommit(partition)) return { outcome: 'assignment-lost' };
      await this.#commit(client, partition, claim, onCommitting);
      client.isClean = true;
      return { outcome: 'committed', handled };
    } catch (error) {
      if (!(error instanceof AbandonedHandler)) return this.#failed(client, partition, error);
      await this.#endSession(client, error.reason);
      if (!this.#events.mayCommit(partition)) return { outcome: 'assignment-lost' };
      return { outcome: 'failed', by: 'handler', error: error.reason };
    }
  }

  /**
   * Ends the session of a handler that was given up, whatever it is doing: a statement that waits for a lock, say, would
   * hold the locks of this transaction on, and the next attempt would wait for them.
   */
  async #endSession(client: HandlerClient, reason: TailraceError): Promise<void> {
    // Behind a pooler the number may be another session's.
    if (this.#clusters.has(client.tx)) await terminate(this.#settings.database, processIdOf(client.tx));
    client.destroy(reason);
  }

  /**
   * Whether a client, in its transaction, is where a partition was taken. Elsewhere the same epoch may stand there, and
   * another message at the same offset. Asked once a connection; through a pooler, which may have changed servers since,
   * each time.
   */
  async #leadsTo(tx: pg.PoolClient, wanted: Cluster): Promise<boolean> {
    const known = this.#clusters.get(tx);
    if (known !== undefined) return isSameCluster(known, wanted);
    const { rows } = await tx.query<ClusterRow & { pid: number }>(`${CLUSTER_SQL}, pg_backend_pid() as pid`);
    const here = clusterOf(rows[0]);
    if (here === undefined) return false;
    if (rows[0]?.pid === processIdOf(tx)) this.#clusters.set(tx, here);
    return isSameCluster(here, wanted);
  }

  #beginning(partition: AssignedPartition, claim: Claim): Statement[] {
    const asksTime = claim.of !== 'nothing' && claim.of !== 'parked' && claim.asksTime;
    const claims = claim.of === 'log' && !this.#settings.ephemeral ? this.#claim(partition, claim.messageIds) : [];
    return [BEGIN, this.#idle, ...(asksTime ? [NOW] : []), ...claims];
  }

  /** The ids of messages that were not handled before, each once; `undefined` where none is asked about. */
  #begunWith(
    claim: Claim,
    answers: readonly TextRows[],
  ): { readonly fresh: Set<string> | undefined; readonly nowMs: number | undefined } {
    const asksTime = claim.of === 'parked' || (claim.of !== 'nothing' && claim.asksTime);
    const nowMs = asksTime ? Number(answers[2]?.[0]?.[0]) : undefined;
    if (claim.of === 'nothing' || claim.of === 'cursor') return { fresh: undefined, nowMs };
    // An ephemeral group leaves no rows behind, so that it can go in a moment.
    if (claim.of === 'log' && this.#settings.ephemeral) {
      return { fresh: new Set(claim.messageIds.map(lowerCase)), nowMs };
    }
    return { fresh: new Set(answers.at(-1)?.map(([id]) => id ?? '')), nowMs };
  }

  #claim({ generation }: AssignedPartition, messageIds: readonly string[]): Statement[] {
    const { schema, group, delivery } = this.#settings;
    const ids = messageIds.map(asMessageId);
    const [id] = ids;
    const isOne = id !== undefined && ids.length === 1;
    const claim: Statement = {
      name: `tailrace claim ${isOne ? 'one ' : ''}${schema}`,
      text: claimSql(schema, isOne),
      values: [isOne ? id : `{${ids.join()}}`, group, String(generation)],
    };
    return delivery === 'at-most-once' ? [DURABLE, claim] : [claim];
  }

  get #idle(): Statement {
    const { handlerIdleMs } = this.#settings;
    return {
      name: `tailrace idle ${handlerIdleMs}`,
      text: `set local idle_in_transaction_session_timeout = ${handlerIdleMs}`,
      values: [],
    };
  }

  #roundTrip(tx: pg.PoolClient, statements: readonly Statement[]): Promise<TextRows[]> {
    return this.#roundTrips.run(tx, this.#clusters.has(tx), statements);
  }

  /** Raises where what the records are of is not this member's any more. */
  #fence({ topic, partition, epoch, lease }: AssignedPartition, claim: Claim): Statement[] {
    const { schema, group } = this.#settings;
    if (lease !== undefined) {
      return [{ name: `tailrace range ${schema}`, text: assertRangeSql(schema), values: [lease] }];
    }
    const place = [group, topic, String(partition)];
    if (claim.of === 'cursor') {
      const values = [...place, String(epoch), String(claim.from), String(claim.to)];
      return [{ name: `tailrace advance ${schema}`, text: advanceSql(schema), values }];
    }
    return [
      { name: 'tailrace lock', text: LOCK_SQL, values: place },
      { name: `tailrace assert ${schema}`, text: assertSql(schema), values: [...place, String(epoch)] },
    ];
  }

  async #commit(
    client: HandlerClient,
    partition: AssignedPartition,
    claim: Claim,
    onCommitting: (() => void) | undefined,
  ): Promise<void> {
    const { tx } = client;
    const statements = [...this.#fence(partition, claim), COMMIT];
    const successor = this.#successorOn(client, onCommitting);
    try {
      if (successor === undefined) await this.#roundTrip(tx, statements);
      else {
        const [committed, begun] = this.#roundTrips.runBoth(tx, statements, successor.statements);
        successor.answers.resolve(begun);
        await committed;
      }
    } catch (error) {
      successor?.answers.reject(error); // of no effect once it was sent
      throw sqlStateOf(error) === IN_FAILED_TRANSACTION ? transactionAborted() : error;
    }
  }

  #failed(client: HandlerClient, partition: AssignedPartition, error: unknown): TransactionResult {
    if (sqlStateOf(error) === ASSIGNMENT_ENDED || !this.#events.mayCommit(partition))
      return { outcome: 'assignment-lost' };
    if (sqlStateOf(error) === ALREADY_PASSED) return { outcome: 'committed', handled: 0 }; // by an attempt whose end is unknown
    if (sqlStateOf(client.lost) === IDLE_TOO_LONG) {
      return { outcome: 'failed', by: 'handler', error: this.#idleTooLong(client.lost) };
    }
    if (client.lost !== undefined) return { outcome: 'failed', by: 'database', error: client.lost };
    // A handler's own connections to elsewhere fail with network errors too; only the server's word counts as the database's.
    const passes = sqlStateOf(error) !== undefined && isTransient(error);
    return { outcome: 'failed', by: passes ? 'database' : 'handler', error };
  }

  #idleTooLong(cause: unknown): TailraceError {
    return new TailraceError(
      'TIMEOUT',
      `The handler left its transaction idle for more than ${this.#settings.handlerIdleMs} ms, so the server ended it. Do slow work before the transaction or through the outbox, or raise handlerIdleMs.`,
      { cause },
    );
  }
}

function lowerCase(text: string): string {
  return text.toLowerCase();
}

/**
 * A parked row is taken out by a statement of its own, as text. Answers as the statements of other transactions do: the third
 * has the time, the last one the message ids.
 */
async function beginParked(tx: pg.PoolClient, claimSql: string, idleMs: number): Promise<TextRows[]> {
  const results = (await tx.query(
    `begin isolation level read committed; set local idle_in_transaction_session_timeout = ${idleMs}; ${NOW.text};
     ${claimSql}`,
  )) as unknown as pg.QueryResult<Readonly<Record<string, string | null>>>[];
  return results.map(({ rows }) => rows.map((row) => Object.values(row)));
}

/** `undefined` if it has come to nothing: the transaction in front of it may have failed. */
async function begunBehind({ client, answers }: Successor): Promise<TextRows[] | undefined> {
  try {
    return await answers.promise;
  } catch (error) {
    if (sqlStateOf(error) === undefined) client.destroy(error as Error); // who knows what it is still to answer
    return undefined;
  }
}

async function lent(client: pg.PoolClient, use: (tx: pg.PoolClient) => unknown): Promise<void> {
  const loan = lendClient(client);
  try {
    await use(loan.tx);
  } finally {
    loan.takeBack();
  }
  if (loan.refused !== undefined) throw loan.refused;
}

/** How long to wait for a client of the pool that can end another's session. */
const TERMINATE_WITHIN_MS = 1_000;

/**
 * Has the server end a session that is still open here, so that the number is its own. Never throws, and takes no longer
 * than {@link TERMINATE_WITHIN_MS}: then the session ends when the server notices that its connection is closed.
 */
async function terminate(database: ConsumerSettings['database'], processId: number): Promise<void> {
  let isTooLate = false;
  const terminated = database
    .connect()
    .then(async (client) => {
      try {
        if (!isTooLate) await client.query('select pg_terminate_backend($1)', [processId]);
      } finally {
        client.release();
      }
    })
    .catch(() => undefined);
  await Promise.race([terminated, pause(TERMINATE_WITHIN_MS)]);
  isTooLate = true;
}

/** The number of the server's process, as the connection was told it. */
function processIdOf(tx: pg.PoolClient): number {
  return (tx as unknown as { processID: number }).processID;
}

function assertInTransaction({ tx, lost }: HandlerClient): void {
  if (lost !== undefined) throw lost;
  const status = tx.getTransactionStatus();
  if (status === 'E') throw transactionAborted();
  if (status !== 'T') {
    throw new TailraceError(
      'NOT_IN_TRANSACTION',
      'The handler ended the transaction that it was called in (commit or rollback). The consumer commits when the handler returns: remove these statements from the handler.',
    );
  }
}

function transactionAborted(): TailraceError {
  return new TailraceError(
    'TRANSACTION_ABORTED',
    'A statement of the handler failed, which aborted its transaction, and the handler returned as if all were well. Let the error out of the handler, or put the statement in a savepoint.',
  );
}

function asMessageId(id: string): string {
  if (MESSAGE_ID.test(id)) return id;
  throw new TailraceError('INVALID_MESSAGE', `Not a message id: ${JSON.stringify(id)}. Expected a UUID.`);
}
