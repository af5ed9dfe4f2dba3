import type { Terminal } from '../terminal.ts';

/** How often a line of figures is written where nobody can see it change. */
const QUIET_INTERVAL_MS = 5_000;

/** Tells the run on standard error: what happens, a line each, and below it the figures, in one line that is written over. */
export class Progress {
  readonly #terminal: Pick<Terminal, 'err' | 'isWatched' | 'columns'>;
  readonly #startedAtMs = performance.now();
  #shownAtMs = Number.NEGATIVE_INFINITY;
  #isLineOpen = false;

  constructor(terminal: Pick<Terminal, 'err' | 'isWatched' | 'columns'>) {
    this.#terminal = terminal;
  }

  /** Something happened. */
  say(text: string): void {
    this.end();
    this.#terminal.err(`${this.#time()}  ${text}\n`);
  }

  /** The figures have changed. */
  show(figures: string): void {
    if (this.#terminal.isWatched) this.#overwrite(`${this.#time()}  ${figures}`);
    else if (performance.now() - this.#shownAtMs >= QUIET_INTERVAL_MS) {
      this.#shownAtMs = performance.now();
      this.say(figures);
    }
  }

  /** Removes the line of figures. */
  end(): void {
    if (this.#isLineOpen) this.#terminal.err('\r\u001b[K');
    this.#isLineOpen = false;
  }

  #overwrite(line: string): void {
    this.#terminal.err(`\r${line.slice(0, this.#terminal.columns - 1)}\u001b[K`);
    this.#isLineOpen = true;
  }

  #time(): string {
    return `${((performance.now() - this.#startedAtMs) / 1_000).toFixed(1).padStart(6)} s`;
  }
}
