import { CommandFailure } from '../failure.ts';
import { ChildService, type ChildOptions } from './child-service.ts';

/** All processes of a run. Dispose ends those that are left, the hard way. */
export class Crew implements AsyncDisposable {
  readonly #failure = new AbortController();
  readonly #children = new Set<ChildService>();
  #isDisposed = false;

  /** Fires when a process ends without having been asked to; the reason is the error to show. */
  get failed(): AbortSignal {
    return this.#failure.signal;
  }

  start(options: Omit<ChildOptions, 'onCollapse'>): ChildService {
    if (this.#isDisposed) throw new CommandFailure(`${options.name} is not started: the demo is ending.`);
    const child = new ChildService({
      ...options,
      onCollapse: ({ name, lastWords }) => {
        this.#failure.abort(new CommandFailure(`The demo's ${name} ended by itself (${lastWords}).`));
      },
    });
    this.#children.add(child);
    void child.ended.then(() => this.#children.delete(child));
    return child;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    await Promise.all([...this.#children].map((child) => child.kill()));
  }
}
