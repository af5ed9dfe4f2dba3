import pg from 'pg';
import { messageOf, TailraceError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import { sqlStateOf } from '../../postgres/sqlstate.ts';
import { clientUrl, withTlsExplained } from '../../postgres/tls.ts';
import { setConfig } from './session.ts';

/** Rows as arrays of what the server wrote: text, not parsed. */
export type TextRow = readonly (string | null)[];

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
const AS_TEXT = { getTypeParser: () => (text: string) => text } as pg.CustomTypesConfig;

/** A few connections for reading. */
export class ReadPool {
  readonly #pool: pg.Pool;
  readonly #schema: string;
  #closing: Promise<void> | undefined;

  constructor(connectionString: string, schema: string, logger: Logger) {
    this.#schema = schema;
    const hooks = { onConnect: useIndexes }; // the pool waits for it, which its published type does not say
    this.#pool = new pg.Pool({
      ...hooks,
      connectionString: clientUrl(connectionString),
      application_name: 'tailrace log',
      max: CONNECTIONS,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: QUERY_TIMEOUT_MS,
      keepAlive: true,
    });
    this.#pool.on('error', (error) => {
      logger.debug({ error: messageOf(error) }, 'an idle connection to the log was lost; the next read opens another');
    });
    // Of one that is lent out the pool does not hear; its query rejects with the same error, or the next one does.
    this.#pool.on('connect', (client) => client.on('error', () => undefined));
  }

  /** @param name prepares the statement, once a connection. */
  async query(text: string, values: readonly unknown[], name?: string): Promise<TextRow[]> {
    return this.#translated(async () => {
      const result = await this.#pool.query<(string | null)[]>(asText(text, values, name));
      return result.rows;
    });
  }

  /** Runs `work` in a read-only transaction. */
  async transaction<Result>(work: (query: (text: string) => Promise<TextRow[]>) => Promise<Result>): Promise<Result> {
    return this.#translated(async () => {
      const client = await this.#pool.connect();
      let failed = true;
      try {
        await client.query('begin read only');
        const result = await work(async (text) => (await client.query<(string | null)[]>(asText(text, []))).rows);
        await client.query('commit');
        failed = false;
        return result;
      } finally {
        client.release(failed); // a failed client is closed, which ends its transaction
      }
    });
  }

  async close(): Promise<void> {
    this.#closing ??= this.#pool.end();
    await this.#closing;
  }

  async #translated<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      throw explain(error, this.#schema);
    }
  }
}

async function useIndexes(client: pg.ClientBase): Promise<void> {
  await client.query(...setConfig(PLAN_SETTINGS));
}

function asText(text: string, values: readonly unknown[], name?: string): pg.QueryArrayConfig<unknown[]> {
  const query = { text, values: [...values], rowMode: 'array' as const, types: AS_TEXT };
  return name === undefined ? query : { ...query, name };
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
