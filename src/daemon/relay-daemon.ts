import { TailraceError } from '../base/errors.ts';
import type { Service } from '../base/lifecycle.ts';
import { silentLogger, type Logger } from '../base/logger.ts';
import { postgresLog, type MaintenanceOptions } from '../broker/postgres/index.ts';
import {
  createRelay,
  walSource,
  type Relay,
  type RelayMode,
  type RelayStatus,
  type Source,
  type WalBudgetPolicy,
} from '../relay/index.ts';
import { StatusWatch } from './status-watch.ts';

/** What a relay daemon is built from. */
export interface RelayDaemonOptions {
  /** Of the database with the outbox: `postgresql://user:password@host:port/database`. Not through a transaction pooler. */
  readonly databaseUrl: string;
  /**
   * `wal` reads the write-ahead log, and polls by itself where the server or the role does not allow that. `polling` needs
   * neither `wal_level` nor the REPLICATION right. Either goes on exactly where the other stopped. What an operator asks for
   * with `tailrace relay switch` comes before it. @defaultValue 'wal'
   */
  readonly mode?: RelayMode;
  /** The schema that `tailrace migrate` filled. @defaultValue 'tailrace' */
  readonly schema?: string;
  /** The name of the replication slot. @defaultValue the schema and the database's OID, as in `tailrace_16384` */
  readonly slot?: string;
  /** Whether standbys keep a copy of the slot, so that it outlives a failover. From Postgres 17 on. @defaultValue true */
  readonly failoverSlot?: boolean;
  /**
   * How much WAL the slot may hold back, in bytes; warned of at 50 and 80 %.
   * @defaultValue the server's `max_slot_wal_keep_size`; none where that sets no limit
   */
  readonly walBudgetBytes?: number;
  /** Whether to say so, or to drop the slot and poll until there is a new one, when that is used up. @defaultValue 'warn' */
  readonly onWalBudget?: WalBudgetPolicy;
  /** The topics that the relay creates. */
  readonly log?: {
    /** How many partitions each gets. @defaultValue 8 */
    readonly partitions?: number;
    /** Whether it creates a topic with its first message. @defaultValue true */
    readonly createTopics?: boolean;
  };
  /** How the relay that leads looks after the log and the outbox; `false`: it does not. */
  readonly maintenance?: MaintenanceOptions | false;
  /** How long a relay that says nothing keeps standbys from taking over, in milliseconds, at least 1000. @defaultValue 10_000 */
  readonly leaseMs?: number;
  /** Names this process to operators. @defaultValue the host's name and a random part */
  readonly holder?: string;
  /** @defaultValue says nothing */
  readonly logger?: Logger;
  /** Called within a quarter of a second after the state, the mode or its reason has changed. */
  readonly onStatusChange?: (status: RelayStatus) => void;
}

/** A relay with everything that it needs, in one object. */
export interface RelayDaemon extends Service {
  /**
   * Resolves when messages flow, or when another relay leads and this one stands by. Waits as long as the server cannot be
   * reached. Rejects with what waiting does not mend: no such database, a wrong password, tables that are not there.
   */
  start(): Promise<void>;
  /** Finishes the append under way and gives the lease up, so that a standby takes over at once. Never rejects. */
  stop(): Promise<void>;
  /** Resolves with the reason if the relay halts, also while it starts. Stays pending otherwise. */
  readonly halted: Promise<unknown>;
  status(): RelayStatus;
}

const MODES: readonly RelayMode[] = ['wal', 'polling'];

/**
 * Builds a relay from a configuration. It handles no signals: that is the program's business.
 *
 * @throws TailraceError `INVALID_OPTION`, `INVALID_SCHEMA_NAME`.
 */
export function createRelayDaemon(options: RelayDaemonOptions): RelayDaemon {
  return new PostgresRelayDaemon(options);
}

class PostgresRelayDaemon implements RelayDaemon {
  readonly halted: Promise<unknown>;
  readonly #log: ReturnType<typeof postgresLog>;
  readonly #relay: Relay;
  readonly #watch: StatusWatch;

  constructor(options: RelayDaemonOptions) {
    const { leaseMs, holder, onStatusChange = () => undefined } = options;
    const common = commonOptions(options);
    const halt = Promise.withResolvers<unknown>();
    this.halted = halt.promise;
    const { maintenance } = options;
    this.#log = postgresLog({ ...common, ...options.log, ...(maintenance !== undefined && { maintenance }) });
    this.#relay = createRelay({
      source: sourceOf(options),
      log: this.#log,
      logger: common.logger,
      onHalt: halt.resolve,
      ...(holder !== undefined && { holder }),
      ...(leaseMs !== undefined && { leaseMs }),
    });
    this.#watch = new StatusWatch(() => this.#relay.status(), onStatusChange);
  }

  async start(): Promise<void> {
    this.#watch.start();
    await this.#relay.start();
    this.#watch.look();
  }

  async stop(): Promise<void> {
    await this.#relay.stop();
    await this.#log.close();
    this.#watch.stop();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  status(): RelayStatus {
    return this.#relay.status();
  }
}

function sourceOf(options: RelayDaemonOptions): Source {
  const { mode = 'wal', slot, failoverSlot, walBudgetBytes, onWalBudget } = options;
  if (!MODES.includes(mode)) {
    throw new TailraceError('INVALID_OPTION', `mode is ${JSON.stringify(mode)}, expected ${MODES.join(' or ')}.`);
  }
  const source = walSource({
    ...commonOptions(options),
    ...(slot !== undefined && { slot }),
    ...(failoverSlot !== undefined && { failoverSlot }),
    ...(walBudgetBytes !== undefined && { walBudgetBytes }),
    ...(onWalBudget !== undefined && { onWalBudget }),
  });
  return { open: (resume, signal, asked = mode) => source.open(resume, signal, asked) };
}

interface CommonOptions {
  readonly connectionString: string;
  readonly logger: Logger;
  readonly schema?: string;
}

/** What the source and the log both take. */
function commonOptions({ databaseUrl, schema, logger = silentLogger }: RelayDaemonOptions): CommonOptions {
  return { connectionString: databaseUrl, logger, ...(schema !== undefined && { schema }) };
}
