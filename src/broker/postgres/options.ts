import { silentLogger, type Logger } from '../../base/logger.ts';
import { LONGEST_TIMER_MS } from '../../base/signal.ts';
import type { MaintenanceOptions, ResolvedMaintenance } from './maintenance/maintenance.ts';
import { DEFAULT_SCHEMA, quoteSchema } from '../../postgres/schema-name.ts';
import { assertPartitions, invalid } from '../checks.ts';

/** How to reach a home log. */
export interface PostgresLogOptions {
  /**
   * Of the outbox's database. The role reads the outbox and the log; to acquire a writer it also writes the log. Not through
   * a pooler that hands a session to another client between transactions: LISTEN, the lease and prepared statements need
   * sessions of their own.
   */
  readonly connectionString: string;
  /** The schema that holds tailrace's tables. @defaultValue 'tailrace' */
  readonly schema?: string;
  /** How many partitions a topic gets that the writer creates; 1 to 10,000. @defaultValue 8 */
  readonly partitions?: number;
  /** Whether the writer creates a topic that does not exist yet. If not, its messages become dead letters of the relay. @defaultValue true */
  readonly createTopics?: boolean;
  /**
   * How often a waiting fetch looks by itself, for the case that a notification is lost: this soon after something
   * happened, and less and less often while nothing does. Raise it to spare a server with very many waiting fetches.
   */
  readonly poll?: {
    /** The shortest interval. @defaultValue 25 */
    readonly minMs?: number;
    /** The longest interval. @defaultValue 1_000 */
    readonly maxMs?: number;
  };
  /**
   * Whoever holds the right to append looks after the log too: removes what retention does not keep, and partitions of the
   * outbox whose time is over. `false`: somebody else does, by `tailrace maintain`.
   */
  readonly maintenance?: MaintenanceOptions | false;
  /** @defaultValue says nothing */
  readonly logger?: Logger;
}

/** The same, checked and complete. */
export interface ResolvedOptions {
  readonly connectionString: string;
  readonly schema: string;
  /** The schema as it stands in SQL. */
  readonly quotedSchema: string;
  readonly partitions: number;
  readonly createTopics: boolean;
  readonly pollMinMs: number;
  readonly pollMaxMs: number;
  readonly maintenance: ResolvedMaintenance | undefined;
  readonly logger: Logger;
}

/** @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`. */
export function resolveOptions(options: PostgresLogOptions): ResolvedOptions {
  const { connectionString, schema = DEFAULT_SCHEMA, createTopics = true, logger = silentLogger } = options;
  if (typeof connectionString !== 'string' || connectionString === '') {
    throw invalid('connectionString', typeof connectionString, 'the URL of the database that holds the outbox');
  }
  const pollMinMs = options.poll?.minMs ?? 25;
  const pollMaxMs = options.poll?.maxMs ?? Math.max(1_000, pollMinMs);
  if (!(pollMinMs >= 1 && pollMinMs <= pollMaxMs && pollMaxMs <= LONGEST_TIMER_MS)) {
    throw invalid('poll', `${pollMinMs} to ${pollMaxMs}`, `milliseconds, 1 <= minMs <= maxMs <= ${LONGEST_TIMER_MS}`);
  }
  const partitions = assertPartitions(options.partitions ?? 8);
  return {
    connectionString,
    schema,
    quotedSchema: quoteSchema(schema),
    partitions,
    createTopics,
    pollMinMs,
    pollMaxMs,
    maintenance: options.maintenance === false ? undefined : maintenanceOf(options.maintenance ?? {}, connectionString),
    logger,
  };
}

/** @throws TailraceError `INVALID_OPTION`. */
export function maintenanceOf(options: MaintenanceOptions, connectionString: string): ResolvedMaintenance {
  const { databaseUrl = connectionString, intervalMs = 60_000, keepOutboxMs = DAY_MS } = options;
  assertMs('maintenance.intervalMs', intervalMs, 10);
  assertMs('maintenance.keepOutboxMs', keepOutboxMs, 0);
  return { databaseUrl, intervalMs, keepOutboxMs };
}

const DAY_MS = 24 * 3600 * 1000;

function assertMs(name: string, ms: number, least: number): void {
  if (Number.isInteger(ms) && ms >= least && ms <= LONGEST_TIMER_MS) return;
  throw invalid(name, String(ms), `a whole number of milliseconds, ${least} to ${LONGEST_TIMER_MS}`);
}
