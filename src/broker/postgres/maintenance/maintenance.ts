import type pg from 'pg';
import { messageOf } from '../../../base/errors.ts';
import type { Logger } from '../../../base/logger.ts';
import { pause } from '../../../base/signal.ts';
import { closeClient, openClient } from '../../../postgres/connection.ts';
import { setConfig } from '../session.ts';
import { PLAN_SETTINGS } from '../read-pool.ts';
import { maintain, type RoundOptions } from './round.ts';

/** How the log is looked after by the relay that may append to it. */
export interface MaintenanceOptions {
  /**
   * The database by a role that owns tailrace's schema: only the owner can remove partitions of the outbox.
   * @defaultValue the log's connection string
   */
  readonly databaseUrl?: string;
  /** How often it looks, in milliseconds. @defaultValue 60_000 */
  readonly intervalMs?: number;
  /**
   * How long messages stay in the outbox after their partition was written full, in milliseconds. Then what is to live
   * longer is packed into the log, and the partition leaves. @defaultValue 86_400_000, a day
   */
  readonly keepOutboxMs?: number;
}

/** The same, checked and complete. */
export interface ResolvedMaintenance {
  readonly databaseUrl: string;
  readonly intervalMs: number;
  readonly keepOutboxMs: number;
}

export interface MaintenanceParts extends RoundOptions {
  readonly databaseUrl: string;
  readonly intervalMs: number;
  readonly logger: Logger;
}

/** No statement may hold a lock that others wait for; one that waits for others is given up, and made in a later round. */
const SETTINGS = { ...PLAN_SETTINGS, lock_timeout: '2s', statement_timeout: '10min' };

/** Looks after the log every so often, on a connection of its own, until it is stopped. Never throws: it says what fails. */
export class Maintenance {
  readonly #parts: MaintenanceParts;
  readonly #stopping = new AbortController();
  #run: Promise<void> = Promise.resolve();
  #client: pg.Client | undefined;

  constructor(parts: MaintenanceParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#run = this.#repeat();
  }

  /** Ends what is under way. What a round leaves unfinished, the next one goes on with, whoever makes it. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#disconnect();
    await this.#run;
  }

  async #repeat(): Promise<void> {
    const { intervalMs } = this.#parts;
    const { signal } = this.#stopping;
    await pause(intervalMs / 6, signal); // a relay that has just begun has other things to do
    while (!signal.aborted) {
      await this.#once();
      await pause(intervalMs, signal);
    }
  }

  /** A connection for each round: rounds are rare. */
  async #once(): Promise<void> {
    const { logger } = this.#parts;
    try {
      const client = await openMaintenanceClient(this.#parts.databaseUrl);
      this.#client = client;
      if (!this.#stopping.signal.aborted) await maintain(client, this.#parts);
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      logger.warn({ error: messageOf(error) }, 'the log could not be looked after; tried again later');
    } finally {
      await this.#disconnect();
    }
  }

  async #disconnect(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) await closeClient(client);
  }
}

/** A connection that {@link maintain} can work on. */
export async function openMaintenanceClient(databaseUrl: string): Promise<pg.Client> {
  const client = await openClient({ connectionString: databaseUrl, applicationName: 'tailrace maintenance' });
  try {
    await client.query(...setConfig(SETTINGS));
    return client;
  } catch (error) {
    await closeClient(client);
    throw error;
  }
}
