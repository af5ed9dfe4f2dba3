import { Signal } from '../../base/signal.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { isSameCluster, type Cluster } from '../../base/cluster.ts';
import { readCluster } from '../../postgres/cluster.ts';
import type { LogWriter, WriterOptions } from '../log.ts';
import { acquireLease } from './acquire-lease.ts';
import { AppendStatement } from './append-statement.ts';
import { channelOf } from './channels.ts';
import { LeaseKeeper, leftBehind, takenOver } from './lease-keeper.ts';
import { LeaseTable, type AskedOfHolder } from './lease.ts';
import { explain, PLAN_SETTINGS, type ReadPool } from './read-pool.ts';
import { ASKED } from './requests.ts';
import { Maintenance, type ResolvedMaintenance } from './maintenance/maintenance.ts';
import { retrying } from './retry.ts';
import { Session } from './session.ts';
import { Topics } from './topics.ts';
import { WriterTables } from './writer-tables.ts';
import { PostgresLogWriter } from './writer.ts';

/** What a log gives to its writers. */
export interface OpenWriterContext {
  readonly connectionString: string;
  readonly schema: string;
  readonly quotedSchema: string;
  readonly partitions: number;
  readonly createTopics: boolean;
  readonly maintenance: ResolvedMaintenance | undefined;
  readonly logger: Logger;
  readonly pool: ReadPool;
  /** Called with the numbers of the partitions that grew. */
  readonly onAppended: (partitions: readonly number[]) => void;
  readonly onReleased: (writer: LogWriter) => void;
}

/**
 * Waits for the lease, takes it and keeps it, and reads what former holders left behind.
 *
 * @throws TailraceError `STOPPED`, `WRONG_CLUSTER`, `HOT_STANDBY`, `NOT_MIGRATED`.
 */
export async function openWriter(context: OpenWriterContext, options: WriterOptions): Promise<LogWriter> {
  const told: Told = { freed: new Signal(), onAsked: () => undefined, onOpened: () => undefined };
  const session = openAppendSession(context, options.leaseMs, told);
  try {
    return await takeAndBuild(context, options, session, told);
  } catch (error) {
    await session.close();
    throw explain(error, context.schema);
  }
}

/** Who is told of notifications. */
interface Told {
  /** Raised when a holder has given the lease up. */
  readonly freed: Signal;
  /** Called when operators ask for something. */
  onAsked: () => void;
  /** Called with where a new connection leads. Throws if nothing may be appended there. */
  onOpened: (cluster: Cluster | undefined) => void;
}

async function takeAndBuild(
  context: OpenWriterContext,
  options: WriterOptions,
  session: Session,
  told: Told,
): Promise<LogWriter> {
  const { quotedSchema, schema, logger, pool } = context;
  const { leaseMs } = options;
  const table = new LeaseTable(quotedSchema, channelOf(schema, 'lease'));
  let here: Cluster | undefined;
  told.onOpened = (opened) => (here = opened);
  const { epoch, cluster, takenAtMs } = await acquireLease(
    { session, table, freed: told.freed, quotedSchema, logger },
    options,
  );
  const leaseSession = openLeaseSession(context, leaseMs);
  let noteAsked = (_asked: AskedOfHolder): void => undefined;
  const keeper = new LeaseKeeper({
    renew: async () => {
      const asked = await table.renew(leaseSession, epoch, leaseMs);
      if (asked !== undefined) noteAsked(asked);
      return asked !== undefined;
    },
    leaseMs,
    takenAtMs,
    logger,
  });
  told.onOpened = (opened) => {
    if (opened !== undefined && isSameCluster(opened, cluster)) return;
    keeper.lose(leftBehind());
    throw leftBehind();
  };
  const giveUp = (): Promise<void> => giveLeaseUp(table, leaseSession, epoch, logger);
  try {
    told.onOpened(here); // there may have been another connection since the lease was taken
    const tables = new WriterTables(pool, quotedSchema, logger);
    const retry = {
      signal: keeper.signal,
      assertMayGoOn: () => keeper.signal.throwIfAborted(),
      failure: 'the end of the log could not be read',
      logger,
    };
    const end = await retrying(() => tables.readEnd(session), retry);
    const asked = await retrying(() => table.readAsked(session, epoch), retry);
    if (asked === undefined) throw takenOver();
    logger.info({ holder: options.holder, epoch, seq: end.seq }, 'took the right to append to the log');
    const maintenance =
      context.maintenance && new Maintenance({ ...context.maintenance, schema, logger, holder: options.holder });
    const writer = new PostgresLogWriter({
      ...context,
      topics: new Topics(pool, quotedSchema), // not older than the layout in `asked`
      epoch,
      table,
      asked,
      keeper,
      session,
      tables,
      end,
      statement: new AppendStatement(quotedSchema, channelOf(schema, 'log')),
      partitionsOfNewTopics: context.createTopics ? context.partitions : undefined,
      onReleased: async () => {
        context.onReleased(writer);
        await maintenance?.stop();
        await giveUp();
        await tables.settled();
      },
    });
    noteAsked = (found) => {
      if (writer.requests.note(found)) options.onAsked?.();
    };
    told.onAsked = () => keeper.renewNow();
    maintenance?.start();
    keeper.signal.addEventListener('abort', () => void maintenance?.stop(), { once: true });
    return writer;
  } catch (error) {
    await keeper.stop();
    await giveUp();
    throw error;
  }
}

/** The database may let commits return before they are durable; what the relay acknowledges after an append must be. */
const DURABLE_COMMITS = `select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'`;

/** A statement that runs for longer than the lease is cancelled: a takeover waits for it. */
function openAppendSession(context: OpenWriterContext, leaseMs: number, told: Told): Session {
  const statementTimeoutMs = Math.max(leaseMs, SHORTEST_STATEMENT_TIMEOUT_MS);
  return new Session({
    connectionString: context.connectionString,
    applicationName: 'tailrace writer',
    settings: {
      ...PLAN_SETTINGS,
      statement_timeout: String(Math.ceil(statementTimeoutMs)),
    },
    openingSql: DURABLE_COMMITS,
    onOpened: async (client) => told.onOpened(await readCluster(client)),
    timeoutMs: statementTimeoutMs + ANSWER_MARGIN_MS,
    channel: channelOf(context.schema, 'lease'),
    onNotification: (payload) => {
      if (payload === ASKED) told.onAsked();
      else told.freed.notify();
    },
  });
}

function openLeaseSession(context: OpenWriterContext, leaseMs: number): Session {
  return new Session({
    connectionString: context.connectionString,
    applicationName: 'tailrace writer lease',
    settings: PLAN_SETTINGS,
    timeoutMs: Math.max(leaseMs / 3, SHORTEST_STATEMENT_TIMEOUT_MS),
  });
}

const SHORTEST_STATEMENT_TIMEOUT_MS = 1_000;
const ANSWER_MARGIN_MS = 2_000;

async function giveLeaseUp(table: LeaseTable, session: Session, epoch: string, logger: Logger): Promise<void> {
  try {
    await table.expire(session, epoch);
  } catch (error) {
    logger.warn({ error: messageOf(error) }, 'the right to append could not be given up; it expires by itself');
  } finally {
    await session.close();
  }
}
