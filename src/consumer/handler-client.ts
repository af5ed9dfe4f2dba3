import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';
import type { ConsumerDatabase } from './options.ts';

/** A client of the pool for the length of one transaction. */
export class HandlerClient {
  readonly tx: pg.PoolClient;
  /** What the connection was lost by. */
  lost: Error | undefined;
  /** Whether the transaction has ended. */
  isClean = false;
  #isGivenBack = false;
  /** Who has the client from now on. */
  #heir: HandlerClient | undefined;
  readonly #onError = (error: Error): void => {
    this.lost ??= error;
  };

  private constructor(tx: pg.PoolClient) {
    this.tx = tx;
    tx.on('error', this.#onError);
  }

  static async take(database: ConsumerDatabase): Promise<HandlerClient> {
    return new HandlerClient(await database.connect());
  }

  /** For the transaction that begins behind the commit of this one, and gives the client back in its place. */
  handOver(): HandlerClient {
    this.#heir = new HandlerClient(this.tx);
    return this.#heir;
  }

  /** Gives the client back with no transaction open: what was not committed is undone. Never throws. */
  async giveBack(): Promise<void> {
    // The client's own word for its state is stale between an error and the server's next "ready".
    if (!this.isClean && this.lost === undefined && this.#heir === undefined) {
      await this.tx.query('rollback').catch(this.#onError);
    }
    this.#release();
  }

  /** Closes the connection, whatever it is doing; the server undoes what was not committed. */
  destroy(reason?: Error): void {
    this.lost ??=
      reason ?? new TailraceError('ASSIGNMENT_LOST', 'The partition was lost before its handler had ended.');
    this.#heir?.destroy(this.lost);
    this.#release();
  }

  #release(): void {
    if (this.#isGivenBack) return;
    this.#isGivenBack = true;
    if (this.#heir === undefined) this.tx.release(this.lost);
    this.tx.removeListener('error', this.#onError);
  }
}
