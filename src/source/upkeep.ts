import type pg from 'pg';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';

const INTERVAL_MS = 1_000;

/**
 * While messages flow, about once a second: keeps outbox partitions ahead of the writers, and the index on `tx` summarized
 * (autovacuum's own requests for that are dropped under load, and a poll then reads the unsummarized tail whole).
 */
export class Upkeep {
  readonly #client: pg.ClientBase;
  readonly #sql: string;
  readonly #logger: Logger;
  readonly #timer: NodeJS.Timeout;
  #active = true;
  #running: Promise<void> = Promise.resolve();

  constructor(client: pg.ClientBase, quotedSchema: string, logger: Logger) {
    this.#client = client;
    this.#logger = logger;
    this.#sql = `select ${quotedSchema}.ensure_outbox_partitions(), ${quotedSchema}.summarize_outbox()`;
    this.#timer = setInterval(() => {
      if (this.#active) this.#running = this.#run();
    }, INTERVAL_MS);
  }

  noticeActivity(): void {
    this.#active = true;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
  }

  async #run(): Promise<void> {
    this.#active = false;
    try {
      await this.#client.query(this.#sql);
    } catch (error) {
      this.#logger.warn(
        { error: messageOf(error) },
        'upkeep of the outbox failed; it is tried again with the next messages',
      );
    }
  }
}
