import type pg from 'pg';
import { messageOf } from '../base/errors.ts';
import type { Service } from '../base/lifecycle.ts';
import { silentLogger, type Logger } from '../base/logger.ts';
import { pause } from '../base/signal.ts';
import type { Secret } from '../base/secret.ts';
import { closeClient, openClient } from '../postgres/connection.ts';
import type { Figures } from './contract.ts';
import { readFigures, type FiguresOptions } from './figures.ts';
import type { FiguresReading } from './observed-pipeline.ts';

export interface FiguresWatchOptions extends FiguresOptions {
  readonly databaseUrl: Secret;
  /** The pause between two readings, in milliseconds. @defaultValue 5_000 */
  readonly intervalMs?: number;
  readonly logger?: Logger;
}

/** A reading that takes longer is given up: it may not burden the database. */
const STATEMENT_TIMEOUT = '5s';

/** Reads a pipeline's figures every few seconds, by one connection of its own. */
export class FiguresWatch implements Service {
  readonly #options: FiguresWatchOptions;
  readonly #logger: Logger;
  readonly #stopping = new AbortController();
  #run: Promise<void> | undefined;
  #client: pg.Client | undefined;
  #figures: Figures | undefined;
  #readAtMs = 0;
  #error: unknown;

  constructor(options: FiguresWatchOptions) {
    this.#options = options;
    this.#logger = options.logger ?? silentLogger;
  }

  /** Begins to read. Waits for no reading. */
  async start(): Promise<void> {
    this.#run ??= this.#readAndPause();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#disconnect(); // ends a query under way
    await this.#run;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** What was read last. */
  current(): FiguresReading {
    return { figures: this.#figures, ageMs: performance.now() - this.#readAtMs, error: this.#error };
  }

  async #readAndPause(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      await this.#read();
      await pause(this.#options.intervalMs ?? 5_000, this.#stopping.signal);
    }
    await this.#disconnect();
  }

  async #read(): Promise<void> {
    try {
      this.#client ??= await this.#connect();
      this.#figures = await readFigures(this.#client, this.#options);
      this.#readAtMs = performance.now();
      this.#error = undefined;
    } catch (error) {
      if (!this.#stopping.signal.aborted) this.#failed(error);
      await this.#disconnect();
    }
  }

  #failed(error: unknown): void {
    const isNews = this.#error === undefined || messageOf(this.#error) !== messageOf(error);
    this.#error = error;
    if (isNews)
      this.#logger.warn({ error: messageOf(error) }, 'the figures cannot be read; tried again every few seconds');
  }

  #connect(): Promise<pg.Client> {
    return openClient({
      connectionString: this.#options.databaseUrl.reveal(),
      applicationName: 'tailrace figures',
      settings: { statement_timeout: STATEMENT_TIMEOUT, enable_bitmapscan: 'on', default_transaction_read_only: 'on' },
      onLost: () => {
        this.#client = undefined;
      },
    });
  }

  async #disconnect(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) await closeClient(client);
  }
}
