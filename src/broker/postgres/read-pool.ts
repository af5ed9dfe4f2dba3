import pg from 'pg';
import { messageOf, TailraceError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { isSameCluster, type Cluster } from '../../base/cluster.ts';
import { readCluster } from '../../postgres/cluster.ts';
import { RoundTrips, type Statement, type TextRow } from '../../postgres/round-trip.ts';
import { listenToPool } from '../../postgres/pool-listener.ts';
import { sqlStateOf } from '../../postgres/sqlstate.ts';
import { clientUrl, withTlsExplained } from '../../postgres/tls.ts';
import { setConfig } from './session.ts';

/**
 * One plan for each statement, made once, that is right whatever the tables look like: by index. A plan made while a
 * table was empty would otherwise go on reading it whole as it fills, and planning each time takes longer than a small fetch.
 */
export const PLAN_SETTINGS = {
  plan_cache_mode: 'force_generic_plan',
  enable_seqscan: 'off',
  enable_bitmapscan: 'off',
  jit: 'off',
} as const;

const CONNECTIONS = 4;
const CONNECT_TIMEOUT_MS = 15_000;
const QUERY_TIMEOUT_MS = 60_000;
/** Whoever still answers from a server that was replaced is left soon. */
const LONGEST_CONNECTION_S = 60;
const AS_TEXT = { getTypeParser: () => (text: string) => text } as pg.CustomTypesConfig;

/** A few connections for reading, all of them to one cluster and timeline: that of the newest connection. */
export class ReadPool {
  readonly #pool: pg.Pool;
  readonly #schema: string;
  readonly #clusters = new WeakMap<pg.ClientBase, Cluster>();
  readonly #roundTrips = new RoundTrips();
  #cluster: Cluster | undefined;
  #closing: Promise<void> | undefined;

  constructor(connectionString: string, schema: string, logger: Logger) {
    this.#schema = schema;
    const onConnect = async (client: pg.ClientBase): Promise<void> => {
      await client.query(...setConfig(PLAN_SETTINGS));
      await this.#learn(client);
    };
    const hooks = { onConnect }; // the pool waits for it, which its published type does not say
    this.#pool = new pg.Pool({
      ...hooks,
      connectionString: clientUrl(connectionString),
      application_name: 'tailrace log',
      max: CONNECTIONS,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
      keepAlive: true,
      maxLifetimeSeconds: LONGEST_CONNECTION_S,
    });
    listenToPool(this.#pool, (error) => {
      logger.debug({ error: messageOf(error) }, 'an idle connection to the log was lost; the next read opens another');
    });
  }

  /**
   * Where everything is read, or will be with the next query; after a change it is another object, and nothing that was
   * asked before comes through. `undefined` before the first connection, and on hot standbys.
   */
  get cluster(): Cluster | undefined {
    return this.#cluster;
  }

  /** Rows as the server wrote them: text, not parsed. */
  async query(text: string, values: readonly unknown[]): Promise<TextRow[]> {
    return this.#lent(async (client) => (await client.query<(string | null)[]>(asText(text, values))).rows);
  }

  /** The same by a statement that is prepared, once a connection; its text names the types of its parameters. */
  async ask(statement: Statement): Promise<readonly TextRow[]> {
    return this.#lent(async (client) => (await this.#roundTrips.run(client, true, [statement]))[0] ?? []);
  }

  /** Runs `work` in a read-only transaction. */
  async transaction<Result>(work: (query: (text: string) => Promise<TextRow[]>) => Promise<Result>): Promise<Result> {
    return this.#lent(async (client) => {
      await client.query('begin read only');
      const result = await work(async (text) => (await client.query<(string | null)[]>(asText(text, []))).rows);
      await client.query('commit');
      return result;
    });
  }

  async close(): Promise<void> {
    this.#closing ??= this.#pool.end();
    await this.#closing;
  }

  async #lent<Result>(work: (client: pg.PoolClient) => Promise<Result>): Promise<Result> {
    try {
      const client = await this.#connect();
      let failed = true;
      try {
        const result = await work(client);
        if (this.#clusters.get(client) !== this.#cluster) throw logMoved();
        failed = false;
        return result;
      } finally {
        client.release(failed); // a failed client is closed, which ends its transaction
      }
    } catch (error) {
      throw explain(error, this.#schema);
    }
  }

  /** A connection to where the newest one leads. */
  async #connect(): Promise<pg.PoolClient> {
    for (;;) {
      const client = await this.#pool.connect();
      try {
        if (await this.#isCurrent(client)) return client;
      } catch (error) {
        client.release(true);
        throw error;
      }
      client.release(true);
    }
  }

  async #isCurrent(client: pg.PoolClient): Promise<boolean> {
    if (!this.#clusters.has(client)) await this.#learn(client); // a standby may have been promoted
    const cluster = this.#clusters.get(client);
    if (cluster === undefined && this.#cluster !== undefined) throw becameStandby();
    return cluster === this.#cluster;
  }

  async #learn(client: pg.ClientBase): Promise<void> {
    const found = await readCluster(client);
    if (found === undefined) return;
    if (this.#cluster === undefined || !isSameCluster(this.#cluster, found)) this.#cluster = found;
    this.#clusters.set(client, this.#cluster);
  }
}

function asText(text: string, values: readonly unknown[]): pg.QueryArrayConfig<unknown[]> {
  return { text, values: [...values], rowMode: 'array', types: AS_TEXT };
}

/** Says what to do where tables are missing or encryption was refused; any other error is returned as it is. */
export function explain(error: unknown, schema: string): unknown {
  const state = sqlStateOf(error);
  if (state !== '42P01' && state !== '3F000') return withTlsExplained(error);
  return new TailraceError(
    'NOT_MIGRATED',
    `The schema ${schema} of this database lacks the tables of the log (${messageOf(error)}). Run \`tailrace migrate\`, or migrate(pool), first.`,
    { cause: error },
  );
}

/** The error for what was asked of one server when the connection string leads to another by now. */
export function logMoved(): TailraceError {
  return new TailraceError(
    'WRONG_CLUSTER',
    'The log is on another cluster or timeline by now: a standby was promoted, or the database was restored. What was read before may not be in it.',
    { retryable: true },
  );
}

function becameStandby(): TailraceError {
  return new TailraceError(
    'HOT_STANDBY',
    'The log was read on a primary, and its address leads to a hot standby now. Reading goes on once it is promoted, or leads to the primary.',
    { retryable: true },
  );
}
