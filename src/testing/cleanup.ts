import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';

/** What is to be undone, the last first. */
export class Cleanup {
  readonly #steps: (() => Promise<void>)[] = [];
  #running: Promise<void> | undefined;

  add(step: () => Promise<void>): void {
    this.#steps.push(step);
  }

  /** Undoes everything, whatever fails on the way; then rejects with the first failure. May be called more than once. */
  run(): Promise<void> {
    this.#running ??= this.#run();
    return this.#running;
  }

  /** The same after a failure, which is to be seen rather than those of undoing it. */
  async runQuietly(logger: Logger): Promise<void> {
    await this.run().catch((error: unknown) => logger.warn({ error: messageOf(error) }, 'something was left behind'));
  }

  async #run(): Promise<void> {
    const failures: unknown[] = [];
    for (const step of this.#steps.reverse()) await step().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  }
}
